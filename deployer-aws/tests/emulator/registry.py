"""Mends of ministack's ECR: images that are unknown, images with several tags, pages."""
import json
import os

from ministack.core.responses import error_response_json, get_account_id, json_response
from ministack.services import ecr as stock

_stock_put = stock._put_image
_stock_batch_get = stock._batch_get_image
_stock_token = stock._get_authorization_token
_stock_repositories = stock._describe_repositories
_LOCAL = f"127.0.0.1:{os.environ.get('GATEWAY_PORT', '4566')}"


def _unknown_repository(name):
    message = f"The repository with name '{name}' does not exist in the registry with id '{get_account_id()}'"
    return error_response_json("RepositoryNotFoundException", message, 400)


def _paged(data, name, records, default=100):
    size = int(data.get("maxResults") or default)
    start = int(data.get("nextToken") or 0)
    answer = {name: records[start : start + size]}
    if start + size < len(records):
        answer["nextToken"] = str(start + size)
    return json_response(answer)


def _named(image_id):
    return ", ".join(f"{key}:'{value}'" for key, value in sorted(image_id.items()))


def _describe_images(data):
    repository = data.get("repositoryName", "")
    if repository not in stock._repositories:
        return _unknown_repository(repository)
    images = stock._images.get(repository, [])
    if data.get("imageIds"):
        images = []
        for image_id in data["imageIds"]:
            image = stock._find_image(repository, image_id)
            if image is None:
                message = (
                    f"The image with imageId {{{_named(image_id)}}} does not exist within the repository with name "
                    f"'{repository}' in the registry with id '{get_account_id()}'"
                )
                return error_response_json("ImageNotFoundException", message, 400)
            if image not in images:
                images.append(image)
    status = (data.get("filter") or {}).get("tagStatus")
    images = [image for image in images if _has_status(image, status)]
    return _paged(data, "imageDetails", [_details(repository, image) for image in images])


def _has_status(image, status):
    if status in ("TAGGED", "UNTAGGED"):
        return bool(image.get("imageTags")) == (status == "TAGGED")
    return True


def _details(repository, image):
    details = {
        "registryId": get_account_id(),
        "repositoryName": repository,
        "imageDigest": image["imageDigest"],
        "imageSizeInBytes": _size(image),
        "imagePushedAt": image["imagePushedAt"],
        "imageManifestMediaType": image["imageManifestMediaType"],
    }
    if image.get("imageTags"):
        details["imageTags"] = image["imageTags"]
    return details


def _size(image):
    """The sum of the layers and the configuration, as far as the manifest lists them."""
    try:
        manifest = json.loads(image["imageManifest"])
    except ValueError:
        return len(image["imageManifest"])
    blobs = [*manifest.get("layers", []), manifest.get("config", {})]
    return sum(blob.get("size", 0) for blob in blobs) or len(image["imageManifest"])


def _list_images(data):
    repository = data.get("repositoryName", "")
    if repository not in stock._repositories:
        return _unknown_repository(repository)
    found = []
    for image in stock._images.get(repository, []):
        if not _has_status(image, (data.get("filter") or {}).get("tagStatus")):
            continue
        for tag in image.get("imageTags") or [None]:
            found.append({"imageDigest": image["imageDigest"], **({"imageTag": tag} if tag else {})})
    return _paged(data, "imageIds", found)


def _put_image(data):
    repository, tag = data.get("repositoryName", ""), data.get("imageTag")
    if repository not in stock._repositories:
        return _unknown_repository(repository)
    digest = data.get("imageDigest") or stock._image_digest(data.get("imageManifest", ""))
    before = stock._find_image(repository, {"imageTag": tag} if tag else {"imageDigest": digest})
    if before and before["imageDigest"] == digest:
        message = (
            f"Image with digest '{digest}' and tag '{tag}' already exists in the repository with name '{repository}' "
            f"in registry with id '{get_account_id()}'"
        )
        return error_response_json("ImageAlreadyExistsException", message, 400)
    status, headers, body = _stock_put(data)
    if status != 200:
        return status, headers, body
    answer = json.loads(body)
    answer["image"]["imageId"] = {"imageDigest": digest, **({"imageTag": tag} if tag else {})}
    return json_response(answer)


def _batch_get_image(data):
    status, headers, body = _stock_batch_get(data)
    if status != 200:
        return status, headers, body
    answer = json.loads(body)
    found = [
        image_id for image_id in data.get("imageIds", []) if stock._find_image(data["repositoryName"], image_id)
    ]
    for image, image_id in zip(answer["images"], found):
        image["imageId"] = {"imageDigest": image["imageId"]["imageDigest"], **image_id}
    return json_response(answer)


def _batch_delete_image(data):
    """An image that is deleted by a tag stays if it has others."""
    repository = data.get("repositoryName", "")
    if repository not in stock._repositories:
        return _unknown_repository(repository)
    deleted, failures = [], []
    for image_id in data.get("imageIds", []):
        image = stock._find_image(repository, image_id)
        if image is None:
            failures.append({
                "imageId": image_id, "failureCode": "ImageNotFound", "failureReason": "Requested image not found",
            })
            continue
        tags = image.get("imageTags") or []
        gone = [image_id["imageTag"]] if image_id.get("imageTag") else list(tags)
        for tag in gone or [None]:
            deleted.append({"imageDigest": image["imageDigest"], **({"imageTag": tag} if tag else {})})
        image["imageTags"] = [tag for tag in tags if tag not in gone]
        if not image["imageTags"] or not image_id.get("imageTag"):
            stock._images[repository].remove(image)
            # Nor can it be pulled any more.
            stock._manifest_blobs.get(repository, {}).pop(image["imageDigest"], None)
    return json_response({"imageIds": deleted, "failures": failures})


def _describe_repositories(data):
    status, headers, body = _stock_repositories({**data, "maxResults": 10**9})
    if status != 200 or data.get("repositoryNames"):
        return status, headers, body
    return _paged(data, "repositories", json.loads(body)["repositories"])


def _local_token(data):
    status, headers, body = _stock_token(data)
    answer = json.loads(body)
    for entry in answer["authorizationData"]:
        entry["proxyEndpoint"] = f"http://{_LOCAL}"
    return json_response(answer)


def _local_uri(name):
    return f"{_LOCAL}/{name}"


def install():
    """Puts the mended parts in the place of ministack's."""
    stock._describe_images = _describe_images
    stock._list_images = _list_images
    stock._put_image = _put_image
    stock._batch_get_image = _batch_get_image
    stock._batch_delete_image = _batch_delete_image
    stock._describe_repositories = _describe_repositories
    if os.environ.get("LAB_LOCAL_REGISTRY"):
        stock._repo_uri = _local_uri
        stock._get_authorization_token = _local_token

//! The operations of ECR on images that are there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use deployer_core::Digest;
use serde_json::{Value, json};

use super::{Cloud, Refusal};

type Answer = Result<Value, Refusal>;

/// The host of the account's registry.
pub(crate) const REGISTRY: &str = "123456789012.dkr.ecr.nowhere.invalid";
/// How many repositories or images a page has.
const PAGE: usize = 2;

/// The kind of all manifests here.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What a digest is of.
fn manifest_of(digest: &str) -> String {
    json!({"mediaType": MANIFEST, "config": {"of": digest}}).to_string()
}

/// A repository: digests by their tags.
#[derive(Clone, Debug, Default)]
pub(crate) struct Repository {
    pub(crate) tags: BTreeMap<String, String>,
    digests: BTreeSet<String>,
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::rude("InvalidParameterException", message)
}

/// A page of a list.
fn page<'a, T>(request: &Value, all: &'a [T]) -> (&'a [T], Option<String>) {
    let from: usize = request["nextToken"].as_str().and_then(|token| token.parse().ok()).unwrap_or_default();
    let to = (from + PAGE).min(all.len());
    (all.get(from..to).unwrap_or_default(), (to < all.len()).then(|| to.to_string()))
}

impl Cloud {
    /// Somebody has pushed an image, and answers what pulls it.
    pub(crate) fn push_image(&mut self, repository: &str, tag: &str) -> String {
        let digest = Digest::of(format!("{repository}:{tag}").as_bytes()).as_str().to_owned();
        let into = self.repositories.entry(repository.to_owned()).or_default();
        into.tags.insert(tag.to_owned(), digest.clone());
        into.digests.insert(digest);
        format!("{REGISTRY}/{repository}:{tag}")
    }

    /// An image is lost.
    pub(crate) fn lose_image(&mut self, digest: &str) {
        for repository in self.repositories.values_mut() {
            repository.tags.retain(|_, known| known != digest);
            repository.digests.remove(digest);
        }
    }

    /// Whether ECS could pull what is named so.
    pub(crate) fn has_image(&self, location: &str) -> bool {
        let named = location.strip_prefix(REGISTRY).and_then(|rest| rest.strip_prefix('/'));
        let Some((name, digest)) = named.and_then(|named| named.split_once('@')) else { return true };
        self.repositories.get(name).is_some_and(|repository| repository.digests.contains(digest))
    }

    pub(super) fn ecr(&mut self, operation: &str, request: &Value) -> Option<Answer> {
        Some(match operation {
            "GetAuthorizationToken" => Ok(self.authorization()),
            "BatchGetImage" => self.batch_get_image(request),
            "DescribeRepositories" => self.describe_repositories(request),
            "ListImages" => self.list_images(request),
            "PutImage" => self.put_image(request),
            "BatchDeleteImage" => self.batch_delete_image(request),
            _ => return None,
        })
    }

    /// A token. When it ends is told in the machine's own time, as whoever uses it asks that.
    fn authorization(&self) -> Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        json!({"authorizationData": [{
            "authorizationToken": STANDARD.encode("AWS:word"), "proxyEndpoint": format!("https://{REGISTRY}"),
            "expiresAt": now + self.token_lasts.unwrap_or(12 * 3_600),
        }]})
    }

    fn repository(&self, request: &Value) -> Result<&Repository, Refusal> {
        let name = request["repositoryName"].as_str().unwrap_or_default();
        let missing = || Refusal::fair("RepositoryNotFoundException", format!("there is no repository {name}"));
        self.repositories.get(name).ok_or_else(missing)
    }

    fn batch_get_image(&self, request: &Value) -> Answer {
        let repository = self.repository(request)?;
        let ids = request["imageIds"].as_array().cloned().unwrap_or_default();
        if !(1..=100).contains(&ids.len()) {
            return Err(invalid("1 to 100 images can be asked for at once"));
        }
        let (mut images, mut failures) = (Vec::new(), Vec::new());
        for id in ids {
            let tagged = id["imageTag"].as_str().map(|tag| repository.tags.get(tag).map(String::as_str));
            let digest = tagged.unwrap_or_else(|| id["imageDigest"].as_str());
            match digest.filter(|digest| repository.digests.contains(*digest)) {
                Some(digest) => images.push(json!({
                    "imageId": {"imageDigest": digest, "imageTag": id["imageTag"]},
                    "imageManifest": manifest_of(digest), "imageManifestMediaType": MANIFEST,
                })),
                None => failures.push(json!({"imageId": id, "failureCode": "ImageNotFound"})),
            }
        }
        Ok(json!({"images": images, "failures": failures}))
    }

    fn put_image(&mut self, request: &Value) -> Answer {
        self.repository(request)?;
        let text = |key: &str| request[key].as_str().unwrap_or_default().to_owned();
        let (name, tag, digest) = (text("repositoryName"), text("imageTag"), text("imageDigest"));
        if text("imageManifest") != manifest_of(&digest) || text("imageManifestMediaType") != MANIFEST {
            return Err(Refusal::rude("ImageDigestDoesNotMatchException", "the manifest is another image's"));
        }
        let repository = self.repositories.entry(name).or_default();
        match repository.tags.get(&tag) {
            // Tags cannot be moved, whichever image it is.
            Some(_) => Err(Refusal::fair(
                "ImageTagAlreadyExistsException",
                "The image tag already exists and cannot be overwritten",
            )),
            None => {
                repository.tags.insert(tag.clone(), digest.clone());
                repository.digests.insert(digest.clone());
                Ok(json!({"image": {"imageId": {"imageDigest": digest, "imageTag": tag}}}))
            }
        }
    }

    fn describe_repositories(&self, request: &Value) -> Answer {
        let names: Vec<&String> = self.repositories.keys().collect();
        let (names, next) = page(request, &names);
        let shown: Vec<Value> = names.iter().map(|name| json!({"repositoryName": name})).collect();
        Ok(json!({"repositories": shown, "nextToken": next}))
    }

    fn list_images(&self, request: &Value) -> Answer {
        let repository = self.repository(request)?;
        if request["filter"]["tagStatus"] != "TAGGED" {
            return Err(invalid("only images with tags are known here"));
        }
        let tags: Vec<(&String, &String)> = repository.tags.iter().collect();
        let (tags, next) = page(request, &tags);
        let shown: Vec<Value> =
            tags.iter().map(|(tag, digest)| json!({"imageTag": tag, "imageDigest": digest})).collect();
        Ok(json!({"imageIds": shown, "nextToken": next}))
    }

    fn batch_delete_image(&mut self, request: &Value) -> Answer {
        self.repository(request)?;
        let name = request["repositoryName"].as_str().unwrap_or_default();
        let ids = request["imageIds"].as_array().cloned().unwrap_or_default();
        if !(1..=100).contains(&ids.len()) {
            return Err(invalid("1 to 100 images can be deleted at once"));
        }
        let (mut deleted, mut failures) = (Vec::new(), Vec::new());
        for id in ids {
            let repository = self.repositories.entry(name.to_owned()).or_default();
            let tag = id["imageTag"].as_str().unwrap_or_default();
            match repository.tags.remove(tag) {
                Some(digest) => {
                    // Whatever no tag names any more is gone.
                    if !repository.tags.values().any(|other| *other == digest) {
                        repository.digests.remove(&digest);
                    }
                    deleted.push(id);
                }
                None => failures.push(json!({"imageId": id, "failureCode": "ImageNotFound"})),
            }
        }
        Ok(json!({"imageIds": deleted, "failures": failures}))
    }
}

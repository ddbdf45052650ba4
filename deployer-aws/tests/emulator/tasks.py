"""ECS tasks: the API, and the records of tasks, each of which runner.py runs."""
import time
import uuid

from ministack.core.responses import get_region, json_response
from ministack.services import ecs as stock

from ecs_records import Refused, arn, cluster_of, definition_of, handler, invalid, lock, network_problem, now, page_of
from ecs_records import view
from runner import Runner, runners
from scope import scope_of

KEPT_SECONDS = 3600

_tokens = {}


def launch(cluster, definition, *, group, started_by, tags, launch_type, provider, data, load_balancers=(),
           deployment_id=None):
    """Makes the record of a new task and starts it. To be called under the lock."""
    task_id = uuid.uuid4().hex
    task_arn = arn(f"task/{cluster['clusterName']}/{task_id}")
    task = {
        "taskArn": task_arn,
        "clusterArn": cluster["clusterArn"],
        "taskDefinitionArn": definition["taskDefinitionArn"],
        "group": group,
        "startedBy": started_by,
        "launchType": launch_type,
        "capacityProviderName": provider,
        "platformVersion": "1.4.0" if launch_type == "FARGATE" else None,
        "platformFamily": "Linux" if launch_type == "FARGATE" else None,
        "cpu": definition.get("cpu", "256"),
        "memory": definition.get("memory", "512"),
        "overrides": data.get("overrides") or {"containerOverrides": [], "inferenceAcceleratorOverrides": []},
        "desiredStatus": "RUNNING",
        "lastStatus": "PROVISIONING",
        "createdAt": now(),
        "connectivity": "CONNECTED",
        "connectivityAt": now(),
        "healthStatus": "UNKNOWN",
        "availabilityZone": f"{get_region()}a",
        "enableExecuteCommand": bool(data.get("enableExecuteCommand")),
        "version": 1,
        "tags": tags,
        "attributes": [{"name": "ecs.cpu-architecture", "value": "x86_64"}],
        "attachments": _attachments(definition, data),
        "containers": [_container_record(task_arn, container) for container in definition["containerDefinitions"]],
        "ephemeralStorage": definition.get("ephemeralStorage") or {"sizeInGiB": 20},
        "_docker_ids": [],
        "_metadata_tokens": [],
        "_deployment_id": deployment_id,
        "_load_balancers": [entry for entry in load_balancers if entry.get("targetGroupArn")],
        "_registries": list(data.get("serviceRegistries") or []),
    }
    stock._tasks[task_arn] = task
    if tags:
        stock._tags[task_arn] = list(tags)
    Runner(task, definition).start()
    return task


def _attachments(definition, data):
    if definition["networkMode"] != "awsvpc":
        return []
    details = [{"name": "networkInterfaceId", "value": f"eni-{uuid.uuid4().hex[:17]}"}]
    subnet = stock._requested_subnet(data)
    if subnet:
        details.insert(0, {"name": "subnetId", "value": subnet})
    return [{"id": str(uuid.uuid4()), "type": "ElasticNetworkInterface", "status": "PRECREATED", "details": details}]


def _container_record(task_arn, container):
    task_id = task_arn.rsplit("task/", 1)[-1]
    return {
        "containerArn": arn(f"container/{task_id}/{uuid.uuid4()}"),
        "taskArn": task_arn,
        "name": container["name"],
        "image": container["image"],
        "lastStatus": "PENDING",
        "healthStatus": "UNKNOWN",
        "networkInterfaces": [],
        "networkBindings": [],
        "cpu": str(container.get("cpu", 0)),
        "memory": str(container["memory"]) if container.get("memory") else None,
        "memoryReservation": str(container["memoryReservation"]) if container.get("memoryReservation") else None,
    }


def _task_tags(data, definition):
    """The tags that a task gets: those of the request, and those that are propagated."""
    tags = list(data.get("tags") or [])
    if data.get("propagateTags") == "TASK_DEFINITION":
        given = {tag["key"] for tag in tags}
        tags += [tag for tag in stock._tags.get(definition["taskDefinitionArn"], []) if tag["key"] not in given]
    return tags


@handler
def _run_task(data):
    cluster = cluster_of(data)
    definition = definition_of(data.get("taskDefinition"))
    if definition is None:
        raise Refused("ClientException", "TaskDefinition not found.")
    if definition["status"] != "ACTIVE":
        raise Refused("ClientException", "TaskDefinition is inactive")
    token = data.get("clientToken")
    key = (cluster["clusterArn"], token)
    asked = {name: value for name, value in data.items() if name != "clientToken"}
    if token and key in _tokens:
        before, arns = _tokens[key]
        if before != asked:
            raise Refused("ConflictException", "The clientToken was used before with other parameters.")
        found = [stock._tasks[task_arn] for task_arn in arns if task_arn in stock._tasks]
        return json_response({"tasks": [view(task, ["TAGS"]) for task in found], "failures": []})
    count = int(data.get("count") or 1)
    if not 1 <= count <= 10:
        raise invalid("Invalid count: must be between 1 and 10.")
    network_problem(data, definition)
    _check_overrides(data, definition)
    launch_type, strategy, error = stock._launch_choice(data, cluster)
    if error:
        return error
    launch_type, provider = stock._task_capacity(launch_type, strategy)
    made = [
        launch(
            cluster, definition, group=data.get("group") or f"family:{definition['family']}",
            started_by=data.get("startedBy"), tags=_task_tags(data, definition), launch_type=launch_type,
            provider=provider, data=data,
        )
        for _ in range(count)
    ]
    if token:
        _tokens[key] = asked, [task["taskArn"] for task in made]
    return json_response({"tasks": [view(task, ["TAGS"]) for task in made], "failures": []})


def _check_overrides(data, definition):
    names = {container["name"] for container in definition["containerDefinitions"]}
    for override in (data.get("overrides") or {}).get("containerOverrides") or []:
        if override.get("name") not in names:
            raise invalid(f"Override for container named {override.get('name')} is not a container in the "
                          "TaskDefinition.")


def find(reference, cluster):
    """The task that an ARN or an id names, or None."""
    task_id = (reference or "").rsplit("/", 1)[-1]
    return stock._tasks.get(arn(f"task/{cluster['clusterName']}/{task_id}"))


@handler
def _stop_task(data):
    task = find(data.get("task"), cluster_of(data))
    if task is None:
        raise invalid("The referenced task was not found.")
    runner = runners.get(task["taskArn"])
    if runner:
        runner.stop(data.get("reason") or "Task stopped by user", "UserInitiated")
    return json_response({"task": view(task, ["TAGS"])})


@handler
def _describe_tasks(data):
    cluster = cluster_of(data)
    references = data.get("tasks") or []
    if not references:
        raise invalid("Tasks cannot be empty.")
    if len(references) > 100:
        raise invalid("Tasks cannot have more than 100 items.")
    found, failures = [], []
    for reference in references:
        task = find(reference, cluster)
        if task:
            found.append(view(task, data.get("include") or []))
        else:
            task_id = reference.rsplit("/", 1)[-1]
            missing = reference if reference.startswith("arn:") else arn(f"task/{cluster['clusterName']}/{task_id}")
            failures.append({"arn": missing, "reason": "MISSING"})
    return json_response({"tasks": found, "failures": failures})


@handler
def _list_tasks(data):
    cluster = cluster_of(data)
    group = None
    if data.get("serviceName"):
        name = data["serviceName"].rsplit("/", 1)[-1]
        if f"{cluster['clusterName']}/{name}" not in stock._services:
            raise Refused("ServiceNotFoundException", "Service not found.")
        group = f"service:{name}"
    status = data.get("desiredStatus") or "RUNNING"
    arns = []
    for task_arn, task in stock._tasks.items():
        family = task["taskDefinitionArn"].rsplit("/", 1)[-1].rsplit(":", 1)[0]
        if (
            task["clusterArn"] == cluster["clusterArn"]
            and task["desiredStatus"] == status
            and (group is None or task["group"] == group)
            and data.get("family") in (None, "", family)
            and data.get("startedBy") in (None, "", task["startedBy"])
            and data.get("launchType") in (None, "", task["launchType"])
        ):
            arns.append(task_arn)
    page, following = page_of(arns, data, 100)
    return json_response({"taskArns": page, **following})


def forget_old():
    """Forgets tasks that stopped long ago."""
    with lock:
        limit = now() - KEPT_SECONDS
        for key, task in list(stock._tasks.all_items()):
            if task["lastStatus"] == "STOPPED" and task.get("stoppedAt", 0) < limit:
                with scope_of(task["taskArn"]):
                    stock._tasks.pop(task["taskArn"], None)


def live_container_ids():
    """The containers that belong to a task, for ministack's collector of abandoned ones."""
    with lock:
        return {docker_id for runner in runners.values() for docker_id in runner.ids.values()}


def abandon_all():
    """Ends all tasks at once, and returns when their containers are gone."""
    with lock:
        _tokens.clear()
        ending = list(runners.values())
        for runner in ending:
            runner.abandon()
    until = time.monotonic() + 20
    while any(runner.task["taskArn"] in runners for runner in ending) and time.monotonic() < until:
        time.sleep(0.02)


OPERATIONS = {
    "RunTask": _run_task,
    "StopTask": _stop_task,
    "DescribeTasks": _describe_tasks,
    "ListTasks": _list_tasks,
}

"""ECS services: the API, and one scheduler thread that brings every service to what it should be.

The scheduler looks at the records only; tasks.py does the work. A deployment is complete when all its tasks are healthy
and no task of an older one is left. Tasks that fail are replaced after a second, then two, four and so on.
"""
import copy
import math
import threading
import time
import uuid

from ministack.core.responses import get_account_id, json_response
from ministack.services import ecs as stock

import tasks
import targets
from ecs_records import Refused, arn, cluster_of, definition_of, handler, invalid, lock, network_problem, now, page_of
from ecs_records import view
from scope import scope_of, seconds

# A task that nothing checks counts as healthy when it has run for so long (40 seconds on AWS).
STEADY = seconds("LAB_STEADY_SECONDS", 1)
BACKOFF = seconds("LAB_BACKOFF_SECONDS", 1)
LONGEST_BACKOFF = 60.0
TICK = 0.1
MOST_EVENTS = 100
SERVICE_ROLE = "aws-service-role/ecs.amazonaws.com/AWSServiceRoleForECS"

_stock_delete_cluster = stock._delete_cluster
_tokens = {}
# What replaces every task of a service when it is changed, and therefore makes a new deployment.
_DEPLOYED = ("networkConfiguration", "platformVersion", "loadBalancers", "capacityProviderStrategy",
             "serviceRegistries")
_KEPT = ("healthCheckGracePeriodSeconds", "enableExecuteCommand", "propagateTags", "enableECSManagedTags",
         "placementConstraints", "placementStrategy", "availabilityZoneRebalancing")


# ---- the API --------------------------------------------------------------------------------------------------------
def _key(cluster, reference):
    return f"{cluster['clusterName']}/{(reference or '').rsplit('/', 1)[-1]}"


def _event(service, message):
    text = f"(service {service['serviceName']}) {message}"
    service["events"].insert(0, {"id": str(uuid.uuid4()), "createdAt": now(), "message": text})
    del service["events"][MOST_EVENTS:]


def _deployment(service):
    deployment_id = f"ecs-svc/{uuid.uuid4().int % 10**19:019d}"
    return {
        "id": deployment_id,
        "status": "PRIMARY",
        "taskDefinition": service["taskDefinition"],
        "desiredCount": service["desiredCount"],
        "pendingCount": 0,
        "runningCount": 0,
        "failedTasks": 0,
        "createdAt": now(),
        "updatedAt": now(),
        "launchType": service["launchType"],
        "capacityProviderStrategy": service["capacityProviderStrategy"],
        "platformVersion": service["platformVersion"],
        "platformFamily": service["platformFamily"],
        "networkConfiguration": service["networkConfiguration"],
        "rolloutState": "IN_PROGRESS",
        "rolloutStateReason": f"ECS deployment {deployment_id} in progress.",
        "_load_balancers": service["loadBalancers"],
        "_failures": 0,
        "_not_before": 0.0,
    }


def _deployment_configuration(given, before=None):
    made = {
        "deploymentCircuitBreaker": {"enable": False, "rollback": False},
        "maximumPercent": 200,
        "minimumHealthyPercent": 100,
        "strategy": "ROLLING",
        "bakeTimeInMinutes": 0,
    }
    made.update(before or {})
    made.update(given or {})
    if made["strategy"] != "ROLLING":
        raise invalid(f"This emulator cannot do the deployment strategy {made['strategy']}.")
    if made["maximumPercent"] <= 100 and made["minimumHealthyPercent"] >= 100:
        raise invalid("The deployment could not ever make progress: maximumPercent must be greater than "
                      "minimumHealthyPercent.")
    return made


def _check_load_balancers(load_balancers, definition):
    by_name = {container["name"]: container for container in definition["containerDefinitions"]}
    if len(load_balancers) > 5:
        raise invalid("load balancers can have at most 5 items.")
    for entry in load_balancers:
        name, port, group_arn = entry.get("containerName"), entry.get("containerPort"), entry.get("targetGroupArn")
        if name not in by_name:
            raise invalid(f"The container {name} does not exist in the task definition.")
        if port not in [mapping["containerPort"] for mapping in by_name[name].get("portMappings") or []]:
            raise invalid(f"The container {name} did not have a container port {port} defined.")
        group = targets.stock._tgs.get(group_arn)
        if group is None:
            raise invalid("Unable to assume the service linked role or target group not found: "
                          f"The specified target group does not exist. {group_arn}")
        if definition["networkMode"] == "awsvpc" and group["TargetType"] != "ip":
            raise invalid(f"The provided target group {group_arn} has target type {group['TargetType']}, which is "
                          "incompatible with the awsvpc network mode specified in the task definition.")
        if group_arn not in targets.referenced_groups():
            raise invalid(f"The target group with targetGroupArn {group_arn} does not have an associated load "
                          "balancer.")


def _definition_for(data):
    definition = definition_of(data.get("taskDefinition"))
    if definition is None:
        raise Refused("ClientException", "TaskDefinition not found.")
    if definition["status"] != "ACTIVE":
        raise Refused("ClientException", "TaskDefinition is inactive")
    return definition


@handler
def _create_service(data):
    cluster = cluster_of(data)
    name = data.get("serviceName")
    if not name:
        raise Refused("ClientException", "serviceName is required.")
    key = f"{cluster['clusterName']}/{name}"
    before = stock._services.get(key)
    asked = {field: value for field, value in data.items() if field != "clientToken"}
    if before and before["status"] == "ACTIVE":
        token = data.get("clientToken")
        if token and _tokens.get((key, token)) == asked:
            return json_response({"service": _service_view(before, ["TAGS"])})
        raise invalid("Creation of service was not idempotent.")
    if before and before["status"] == "DRAINING":
        raise invalid("Unable to Start a service that is still Draining.")
    if data.get("desiredCount") is None:
        raise invalid("desiredCount is required if schedulingStrategy is REPLICA or isn't specified.")
    definition = _definition_for(data)
    network_problem(data, definition)
    _check_load_balancers(data.get("loadBalancers") or [], definition)
    launch_type, strategy, error = stock._launch_choice(data, cluster)
    if error:
        return error
    service = _new_service(data, cluster, definition, launch_type, strategy)
    stock._services[key] = service
    stock._tags.pop(service["serviceArn"], None)
    if data.get("tags"):
        stock._tags[service["serviceArn"]] = list(data["tags"])
    if data.get("clientToken"):
        _tokens[key, data["clientToken"]] = asked
    return json_response({"service": _service_view(service, ["TAGS"])})


def _new_service(data, cluster, definition, launch_type, strategy):
    service = {
        "serviceArn": arn(f"service/{cluster['clusterName']}/{data['serviceName']}"),
        "serviceName": data["serviceName"],
        "clusterArn": cluster["clusterArn"],
        "loadBalancers": data.get("loadBalancers") or [],
        "serviceRegistries": data.get("serviceRegistries") or [],
        "status": "ACTIVE",
        "desiredCount": int(data.get("desiredCount") or 0),
        "runningCount": 0,
        "pendingCount": 0,
        "launchType": launch_type,
        "capacityProviderStrategy": strategy,
        "platformVersion": (data.get("platformVersion") or "LATEST") if launch_type != "EC2" else None,
        "platformFamily": "Linux" if launch_type != "EC2" else None,
        "taskDefinition": definition["taskDefinitionArn"],
        "deploymentConfiguration": _deployment_configuration(data.get("deploymentConfiguration")),
        "deployments": [],
        "roleArn": data.get("role") or f"arn:aws:iam::{get_account_id()}:role/{SERVICE_ROLE}",
        "events": [],
        "createdAt": now(),
        "placementConstraints": [],
        "placementStrategy": [],
        "networkConfiguration": data.get("networkConfiguration"),
        "healthCheckGracePeriodSeconds": data.get("healthCheckGracePeriodSeconds"),
        "schedulingStrategy": data.get("schedulingStrategy") or "REPLICA",
        "deploymentController": data.get("deploymentController") or {"type": "ECS"},
        "createdBy": f"arn:aws:iam::{get_account_id()}:root",
        "enableECSManagedTags": bool(data.get("enableECSManagedTags")),
        "propagateTags": data.get("propagateTags") or "NONE",
        "enableExecuteCommand": bool(data.get("enableExecuteCommand")),
        "_last_completed": None,
        "_steady": False,
    }
    service["deployments"].append(_deployment(service))
    return service


def _existing(data):
    cluster = cluster_of(data)
    service = stock._services.get(_key(cluster, data.get("service")))
    if service is None:
        raise Refused("ServiceNotFoundException", "Service not found.")
    return service


@handler
def _update_service(data):
    service = _existing(data)
    if service["status"] != "ACTIVE":
        raise Refused("ServiceNotActiveException", "Service was not ACTIVE.")
    changed = {field: data[field] for field in _DEPLOYED if field in data and data[field] != service[field]}
    reference = data.get("taskDefinition") or service["taskDefinition"]
    definition = _definition_for({"taskDefinition": reference}) if data.get("taskDefinition") else definition_of(
        reference
    )
    if "loadBalancers" in data or data.get("taskDefinition"):
        _check_load_balancers(data.get("loadBalancers", service["loadBalancers"]), definition)
    if "deploymentConfiguration" in data:
        service["deploymentConfiguration"] = _deployment_configuration(
            data["deploymentConfiguration"], service["deploymentConfiguration"]
        )
    is_new = bool(changed) or definition["taskDefinitionArn"] != service["taskDefinition"]
    is_new = is_new or bool(data.get("forceNewDeployment"))
    service.update(changed)
    if "capacityProviderStrategy" in changed:
        strategy = changed["capacityProviderStrategy"] or None
        service["capacityProviderStrategy"] = strategy
        service["launchType"] = None if strategy else (service["launchType"] or "EC2")
    service.update({field: data[field] for field in _KEPT if field in data})
    service["taskDefinition"] = definition["taskDefinitionArn"]
    if data.get("desiredCount") is not None:
        service["desiredCount"] = int(data["desiredCount"])
        service["_steady"] = False
    primary = _primary(service)
    if is_new:
        primary["status"] = "ACTIVE"
        service["deployments"].insert(0, _deployment(service))
        service["_steady"] = False
    elif data.get("desiredCount") is not None and primary["rolloutState"] != "FAILED":
        primary["desiredCount"] = service["desiredCount"]
        primary["updatedAt"] = now()
    return json_response({"service": _service_view(service, ["TAGS"])})


@handler
def _delete_service(data):
    service = _existing(data)
    if service["status"] == "INACTIVE":
        raise Refused("ServiceNotFoundException", "Service not found.")
    if service["desiredCount"] > 0 and not data.get("force"):
        raise invalid("The service cannot be stopped while it is scaled above 0.")
    service["desiredCount"] = 0
    service["status"] = "DRAINING"
    for deployment in service["deployments"]:
        deployment["desiredCount"] = 0
    return json_response({"service": _service_view(service, ["TAGS"])})


@handler
def _describe_services(data):
    cluster = cluster_of(data)
    references = data.get("services") or []
    if not references:
        raise invalid("Services cannot be empty.")
    if len(references) > 10:
        raise invalid("Services cannot have more than 10 items.")
    found, failures = [], []
    for reference in references:
        service = stock._services.get(_key(cluster, reference))
        if service is not None and reference.startswith("arn:") and reference != service["serviceArn"]:
            service = None
        if service is None:
            name = _key(cluster, reference)
            missing = reference if reference.startswith("arn:") else arn(f"service/{name}")
            failures.append({"arn": missing, "reason": "MISSING"})
        else:
            found.append(_service_view(service, data.get("include") or []))
    return json_response({"services": found, "failures": failures})


@handler
def _list_services(data):
    cluster = cluster_of(data)
    arns = [
        service["serviceArn"]
        for service in stock._services.values()
        if service["clusterArn"] == cluster["clusterArn"]
        and service["status"] != "INACTIVE"
        and data.get("launchType") in (None, "", service["launchType"])
        and data.get("schedulingStrategy") in (None, "", service["schedulingStrategy"])
    ]
    page, following = page_of(arns, data, 10)
    return json_response({"serviceArns": page, **following})


@handler
def _delete_cluster(data):
    cluster = cluster_of(data)
    for service in stock._services.values():
        if service["clusterArn"] == cluster["clusterArn"] and service["status"] != "INACTIVE":
            message = "The Cluster cannot be deleted while Services are active."
            raise Refused("ClusterContainsServicesException", message)
    if any(runner.task["clusterArn"] == cluster["clusterArn"] for runner in tasks.runners.values()):
        raise Refused("ClusterContainsTasksException", "The Cluster cannot be deleted while Tasks are active.")
    return _stock_delete_cluster(data)


def _service_view(service, include):
    _count(service, _tasks_of(service))
    shown = view(service, include)
    if service["status"] == "INACTIVE":
        shown["deployments"] = []
    return shown


# ---- the scheduler --------------------------------------------------------------------------------------------------
def _primary(service):
    return next(deployment for deployment in service["deployments"] if deployment["status"] == "PRIMARY")


def _tasks_of(service):
    """The tasks of a service that are not STOPPED."""
    group = f"service:{service['serviceName']}"
    return [
        runner.task
        for runner in list(tasks.runners.values())
        if runner.task["group"] == group and runner.task["clusterArn"] == service["clusterArn"]
    ]


def _count(service, present):
    totals = {"runningCount": 0, "pendingCount": 0}
    for deployment in service["deployments"]:
        own = [task for task in present if task["_deployment_id"] == deployment["id"]]
        deployment["runningCount"] = sum(task["lastStatus"] == "RUNNING" for task in own)
        deployment["pendingCount"] = sum(
            task["lastStatus"] in tasks.PENDING and task["desiredStatus"] == "RUNNING" for task in own
        )
        for name in totals:
            totals[name] += deployment[name]
    service.update(totals)


def _has_checks(task):
    return any(
        container.get("healthCheck") and container.get("essential", True)
        for container in tasks.runners[task["taskArn"]].definition["containerDefinitions"]
    )


def _target_states(task):
    for entry in task["_load_balancers"]:
        yield entry, targets.health(entry["targetGroupArn"], task.get("_container_ip"), entry["containerPort"])


def _is_healthy(task):
    if task["lastStatus"] != "RUNNING" or task["desiredStatus"] != "RUNNING":
        return False
    has_checks = _has_checks(task)
    if has_checks and task["healthStatus"] != "HEALTHY":
        return False
    if any(state != "healthy" for _, state in _target_states(task)):
        return False
    return bool(has_checks or task["_load_balancers"]) or now() - task["startedAt"] >= STEADY


def _reconcile(service):
    present = _tasks_of(service)
    if service["status"] == "DRAINING":
        _stop(present, service)
        _count(service, present)
        if not present:
            service["status"] = "INACTIVE"
        return
    primary = _primary(service)
    _stop_unhealthy(service, present)
    wanted = [task for task in present if task["desiredStatus"] == "RUNNING"]
    current = [task for task in wanted if task["_deployment_id"] == primary["id"]]
    older = [task for task in wanted if task["_deployment_id"] != primary["id"]]
    _note_healthy(service, primary, current)
    if primary["rolloutState"] == "FAILED":
        # Nothing new is started; what runs stays, unless the service is scaled in.
        _scale_in(service, wanted)
        _count(service, present)
        _forget_drained(service, primary, present)
        return
    _scale_in(service, current)
    _stop_older(service, current, older)
    _start_missing(service, primary, current, older)
    _count(service, present)
    _forget_drained(service, primary, present)
    _complete(service, primary, current, present)


def _note_healthy(service, primary, current):
    breaker = service["deploymentConfiguration"].get("deploymentCircuitBreaker") or {}
    for task in current:
        if task.get("_was_healthy") or not _is_healthy(task):
            continue
        task["_was_healthy"] = True
        primary["_failures"] = 0
        primary["_not_before"] = 0.0
        if breaker.get("resetOnHealthyTask", True) and primary["rolloutState"] == "IN_PROGRESS":
            primary["failedTasks"] = 0


def _stop(unwanted, service, reason=None):
    """Stops tasks, and says so in the events of the service."""
    stopping = [task for task in unwanted if task["desiredStatus"] == "RUNNING"]
    for task in stopping:
        deployment = task["_deployment_id"]
        text = reason or f"Scaling activity initiated by (deployment {deployment})"
        tasks.runners[task["taskArn"]].stop(text, "ServiceSchedulerInitiated")
    if not stopping:
        return
    named = " ".join(f"(task {task['taskArn'].rsplit('/', 1)[-1]})" for task in stopping)
    service["_steady"] = False
    _event(service, f"has stopped {len(stopping)} running tasks: {named}.")
    for group_arn in sorted({entry["targetGroupArn"] for task in stopping for entry in task["_load_balancers"]}):
        _event(service, f"deregistered {len(stopping)} targets in (target-group {group_arn})")
        _event(service, f"has begun draining connections on {len(stopping)} tasks.")


def _stop_unhealthy(service, present):
    grace = float(service.get("healthCheckGracePeriodSeconds") or 0)
    for task in present:
        if task["lastStatus"] != "RUNNING" or task["desiredStatus"] != "RUNNING" or now() - task["startedAt"] < grace:
            continue
        reason = None
        if _has_checks(task) and task["healthStatus"] == "UNHEALTHY":
            reason = "Task failed container health checks"
            _event(service, f"(task {task['taskArn'].rsplit('/', 1)[-1]}) failed container health checks.")
        for entry, state in _target_states(task):
            if state == "unhealthy" and reason is None:
                group = f"(target-group {entry['targetGroupArn']})"
                reason = f"Task failed ELB health checks in {group}"
                _event(service, f"(port {entry['containerPort']}) is unhealthy in {group} due to (reason Health checks "
                                "failed).")
        if reason:
            _stop([task], service, reason)
            task_failed(task)


def _scale_in(service, current):
    surplus = len(current) - service["desiredCount"]
    if surplus > 0:
        # Those that do not serve yet go first, then the newest.
        current.sort(key=lambda task: (_is_healthy(task), -task["createdAt"]))
        _stop(current[:surplus], service)
        del current[:surplus]


def _stop_older(service, current, older):
    """Stops tasks of older deployments as far as enough healthy ones are left."""
    percent = int(service["deploymentConfiguration"]["minimumHealthyPercent"])
    needed = math.ceil(service["desiredCount"] * percent / 100)
    healthy = sum(_is_healthy(task) for task in current)
    useful = [task for task in older if _is_healthy(task)]
    spare = min(len(useful), max(0, healthy + len(useful) - needed))
    # Those that do not serve go once they are in the way; those that do not even run go at once.
    in_the_way = healthy >= needed or (
        len(current) < service["desiredCount"] and _room(service, current, older) <= 0
    )
    useless = [
        task
        for task in older
        if task not in useful and (in_the_way or task["lastStatus"] in tasks.PENDING)
    ]
    unwanted = useless + useful[:spare]
    _stop(unwanted, service)
    for task in unwanted:
        older.remove(task)


def _room(service, current, older):
    percent = int(service["deploymentConfiguration"]["maximumPercent"])
    most = max(1, service["desiredCount"] * percent // 100)
    return most - len(current) - len(older)


def _start_missing(service, primary, current, older):
    missing = min(service["desiredCount"] - len(current), _room(service, current, older))
    if missing <= 0 or time.monotonic() < primary["_not_before"]:
        return
    definition = definition_of(primary["taskDefinition"])
    cluster = stock._clusters[service["clusterArn"].rsplit("/", 1)[-1]]
    launch_type, provider = stock._task_capacity(primary["launchType"], primary["capacityProviderStrategy"])
    made = [
        tasks.launch(
            cluster, copy.deepcopy(definition), group=f"service:{service['serviceName']}",
            started_by=primary["id"], tags=_task_tags(service, definition), launch_type=launch_type, provider=provider,
            data=service, load_balancers=primary["_load_balancers"], deployment_id=primary["id"],
        )
        for _ in range(missing)
    ]
    named = " ".join(f"(task {task['taskArn'].rsplit('/', 1)[-1]})" for task in made)
    service["_steady"] = False
    _event(service, f"has started {len(made)} tasks: {named}.")


def _task_tags(service, definition):
    source = {"SERVICE": service["serviceArn"], "TASK_DEFINITION": definition["taskDefinitionArn"]}
    tags = list(stock._tags.get(source.get(service["propagateTags"]), []))
    if service["enableECSManagedTags"]:
        tags.append({"key": "aws:ecs:serviceName", "value": service["serviceName"]})
        tags.append({"key": "aws:ecs:clusterName", "value": service["clusterArn"].rsplit("/", 1)[-1]})
    return tags


def _forget_drained(service, primary, present):
    """Deployments that were replaced are listed until their last task has stopped."""
    busy = {task["_deployment_id"] for task in present}
    for deployment in service["deployments"]:
        if deployment is not primary:
            deployment["desiredCount"] = sum(
                task["_deployment_id"] == deployment["id"] and task["desiredStatus"] == "RUNNING" for task in present
            )
    service["deployments"] = [
        deployment for deployment in service["deployments"] if deployment is primary or deployment["id"] in busy
    ]


def _complete(service, primary, current, present):
    if len(current) != service["desiredCount"] or not all(_is_healthy(task) for task in current):
        service["_steady"] = False
        return
    if any(task["_deployment_id"] != primary["id"] for task in present):
        return
    if primary["rolloutState"] == "IN_PROGRESS":
        primary["rolloutState"] = "COMPLETED"
        primary["rolloutStateReason"] = f"ECS deployment {primary['id']} completed."
        primary["updatedAt"] = now()
        service["_last_completed"] = primary
        _event(service, f"(deployment {primary['id']}) deployment completed.")
    if not service["_steady"] and len(present) == service["desiredCount"]:
        service["_steady"] = True
        _event(service, "has reached a steady state.")


def task_failed(task):
    """Counts a task that failed: its replacement waits, and the circuit breaker may end the deployment."""
    if not task["group"].startswith("service:") or task["_deployment_id"] is None:
        return
    key = f"{task['clusterArn'].rsplit('/', 1)[-1]}/{task['group'].partition(':')[2]}"
    service = stock._services.get(key)
    if service is None or service["status"] != "ACTIVE":
        return
    primary = _primary(service)
    if primary["id"] != task["_deployment_id"]:
        return
    primary["_failures"] += 1
    wait = min(LONGEST_BACKOFF, BACKOFF * 2 ** (primary["_failures"] - 1))
    primary["_not_before"] = max(primary["_not_before"], time.monotonic() + wait)
    if primary["_failures"] == 5:
        _event(service, "is unable to consistently start tasks successfully. For more information, see the "
                        "Troubleshooting section.")
    if primary["rolloutState"] != "IN_PROGRESS":
        return
    primary["failedTasks"] += 1
    primary["updatedAt"] = now()
    breaker = service["deploymentConfiguration"].get("deploymentCircuitBreaker") or {}
    if breaker.get("enable") and primary["failedTasks"] >= stock._circuit_breaker_threshold(service):
        _break(service, primary, breaker)


def _break(service, failed, breaker):
    failed["rolloutState"] = "FAILED"
    failed["rolloutStateReason"] = "ECS deployment circuit breaker: tasks failed to start."
    _event(service, f"(deployment {failed['id']}) deployment failed: tasks failed to start.")
    back = service["_last_completed"]
    if not breaker.get("rollback") or back is None or back is failed:
        return
    failed["status"] = "ACTIVE"
    failed["desiredCount"] = 0
    back["status"] = "PRIMARY"
    back["desiredCount"] = service["desiredCount"]
    back["rolloutState"] = "IN_PROGRESS"
    back["rolloutStateReason"] = f"ECS deployment circuit breaker: rolling back to deploymentId {back['id']}."
    back["updatedAt"] = now()
    back["_not_before"] = 0.0
    back["_failures"] = back["failedTasks"] = 0
    service["deployments"] = [back] + [each for each in service["deployments"] if each is not back]
    service["taskDefinition"] = back["taskDefinition"]
    _event(service, f"rolling back to deployment {back['id']}.")


def _schedule():
    purged_at = time.monotonic()
    while True:
        time.sleep(TICK)
        for _, service in list(stock._services.all_items()):
            if service["status"] == "INACTIVE":
                continue
            try:
                with scope_of(service["serviceArn"]), lock:
                    _reconcile(service)
            except Exception as error:
                print(f"lab: service {service['serviceName']}:", repr(error), flush=True)
        if time.monotonic() - purged_at > 60:
            purged_at = time.monotonic()
            tasks.forget_old()


def forget_tokens():
    """For a reset of the emulator."""
    with lock:
        _tokens.clear()


def start():
    """Starts the scheduler."""
    tasks.on_failure.append(task_failed)
    threading.Thread(target=_schedule, daemon=True, name="lab-services").start()


OPERATIONS = {
    "CreateService": _create_service,
    "UpdateService": _update_service,
    "DeleteService": _delete_service,
    "DescribeServices": _describe_services,
    "ListServices": _list_services,
    "DeleteCluster": _delete_cluster,
}

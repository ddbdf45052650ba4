"""The scheduler of ECS services: one thread that brings every service to what it should be.

It looks at the records only; runner.py does the work. A deployment is complete when all its tasks are healthy and no
task of an older one is left. Tasks that fail are replaced after a second, then two, four and so on.
"""
import copy
import math
import threading
import time
import uuid

from ministack.services import ecs as stock

import tasks
import targets
from ecs_records import definition_of, lock, now
from runner import PENDING, on_failure, runners
from scope import scope_of, seconds

# A task that nothing checks counts as healthy when it has run for so long (40 seconds on AWS).
STEADY = seconds("LAB_STEADY_SECONDS", 1)
BACKOFF = seconds("LAB_BACKOFF_SECONDS", 1)
LONGEST_BACKOFF = 60.0
TICK = 0.1
MOST_EVENTS = 100


def event(service, message):
    text = f"(service {service['serviceName']}) {message}"
    service["events"].insert(0, {"id": str(uuid.uuid4()), "createdAt": now(), "message": text})
    del service["events"][MOST_EVENTS:]


def primary_of(service):
    return next(deployment for deployment in service["deployments"] if deployment["status"] == "PRIMARY")


def tasks_of(service):
    """The tasks of a service that are not STOPPED."""
    group = f"service:{service['serviceName']}"
    return [
        runner.task
        for runner in list(runners.values())
        if runner.task["group"] == group and runner.task["clusterArn"] == service["clusterArn"]
    ]


def count(service, present):
    totals = {"runningCount": 0, "pendingCount": 0}
    for deployment in service["deployments"]:
        own = [task for task in present if task["_deployment_id"] == deployment["id"]]
        deployment["runningCount"] = sum(task["lastStatus"] == "RUNNING" for task in own)
        deployment["pendingCount"] = sum(
            task["lastStatus"] in PENDING and task["desiredStatus"] == "RUNNING" for task in own
        )
        for name in totals:
            totals[name] += deployment[name]
    service.update(totals)


def _has_checks(task):
    return any(
        container.get("healthCheck") and container.get("essential", True)
        for container in runners[task["taskArn"]].definition["containerDefinitions"]
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
    present = tasks_of(service)
    if service["status"] == "DRAINING":
        _stop(present, service)
        count(service, present)
        if not present:
            service["status"] = "INACTIVE"
        return
    primary = primary_of(service)
    _stop_unhealthy(service, present)
    wanted = [task for task in present if task["desiredStatus"] == "RUNNING"]
    current = [task for task in wanted if task["_deployment_id"] == primary["id"]]
    older = [task for task in wanted if task["_deployment_id"] != primary["id"]]
    _note_healthy(service, primary, current)
    if primary["rolloutState"] == "FAILED":
        # Nothing new is started; what runs stays, unless the service is scaled in.
        _scale_in(service, wanted)
        count(service, present)
        _forget_drained(service, primary, present)
        return
    _scale_in(service, current)
    _stop_older(service, current, older)
    _start_missing(service, primary, current, older)
    count(service, present)
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
        runners[task["taskArn"]].stop(text, "ServiceSchedulerInitiated")
    if not stopping:
        return
    named = " ".join(f"(task {task['taskArn'].rsplit('/', 1)[-1]})" for task in stopping)
    service["_steady"] = False
    event(service, f"has stopped {len(stopping)} running tasks: {named}.")
    for group_arn in sorted({entry["targetGroupArn"] for task in stopping for entry in task["_load_balancers"]}):
        event(service, f"deregistered {len(stopping)} targets in (target-group {group_arn})")
        event(service, f"has begun draining connections on {len(stopping)} tasks.")


def _stop_unhealthy(service, present):
    grace = float(service.get("healthCheckGracePeriodSeconds") or 0)
    for task in present:
        if task["lastStatus"] != "RUNNING" or task["desiredStatus"] != "RUNNING" or now() - task["startedAt"] < grace:
            continue
        reason = None
        if _has_checks(task) and task["healthStatus"] == "UNHEALTHY":
            reason = "Task failed container health checks"
            event(service, f"(task {task['taskArn'].rsplit('/', 1)[-1]}) failed container health checks.")
        for entry, state in _target_states(task):
            if state == "unhealthy" and reason is None:
                group = f"(target-group {entry['targetGroupArn']})"
                reason = f"Task failed ELB health checks in {group}"
                event(service, f"(port {entry['containerPort']}) is unhealthy in {group} due to (reason Health checks "
                                "failed).")
        if reason:
            _stop([task], service, reason)
            task_failed(task)


def _scale_in(service, current):
    surplus = len(current) - service["desiredCount"]
    if surplus > 0:
        # Those that do not serve yet go first, then the newest. ECS makes no promise among those of one millisecond, which
        # is all that the SDK tells; here the last by name goes, so that tests can say which are left.
        current.sort(key=lambda task: task["taskArn"], reverse=True)
        current.sort(key=lambda task: (_is_healthy(task), -int(task["createdAt"] * 1000)))
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
        if task not in useful and (in_the_way or task["lastStatus"] in PENDING)
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
    event(service, f"has started {len(made)} tasks: {named}.")


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
        event(service, f"(deployment {primary['id']}) deployment completed.")
    if not service["_steady"] and len(present) == service["desiredCount"]:
        service["_steady"] = True
        event(service, "has reached a steady state.")


def task_failed(task):
    """Counts a task that failed: its replacement waits, and the circuit breaker may end the deployment."""
    if not task["group"].startswith("service:") or task["_deployment_id"] is None:
        return
    key = f"{task['clusterArn'].rsplit('/', 1)[-1]}/{task['group'].partition(':')[2]}"
    service = stock._services.get(key)
    if service is None or service["status"] != "ACTIVE":
        return
    primary = primary_of(service)
    if primary["id"] != task["_deployment_id"]:
        return
    primary["_failures"] += 1
    wait = min(LONGEST_BACKOFF, BACKOFF * 2 ** (primary["_failures"] - 1))
    primary["_not_before"] = max(primary["_not_before"], time.monotonic() + wait)
    if primary["_failures"] == 5:
        event(service, "is unable to consistently start tasks successfully. For more information, see the "
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
    event(service, f"(deployment {failed['id']}) deployment failed: tasks failed to start.")
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
    event(service, f"rolling back to deployment {back['id']}.")


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


def start():
    """Starts the scheduler."""
    on_failure.append(task_failed)
    threading.Thread(target=_schedule, daemon=True, name="lab-services").start()

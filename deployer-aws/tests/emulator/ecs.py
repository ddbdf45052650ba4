"""Mends of ministack's ECS: what decides that a deployment is complete, and which services are refused."""
import threading
import time

from ministack.core.responses import error_response_json, json_response
from ministack.services import ecs as stock

import targets
from scope import scope_of

_stock_make_deployment = stock._make_deployment
_stock_create_service = stock._create_service
_stock_complete = stock._complete_service_deployment
_stock_run_kwargs = stock._build_run_kwargs
_stock_task_healthy = stock._record_service_task_healthy
_tokens = {}


def _make_deployment(*args, **options):
    deployment = _stock_make_deployment(*args, **options)
    if deployment["status"] == "PRIMARY":
        deployment["rolloutState"] = "IN_PROGRESS"
        deployment["rolloutStateReason"] = f"ECS deployment {deployment['id']} in progress."
    return deployment


def _create_service(data):
    cluster = stock._resolve_cluster_name(data.get("cluster", "default"))
    if cluster not in stock._clusters:
        return error_response_json("ClusterNotFoundException", "Cluster not found.", 400)
    key = f"{cluster}/{data.get('serviceName')}"
    before = stock._services.get(key)
    token = data.get("clientToken")
    if token and _tokens.get(token) == key and before and before["status"] == "ACTIVE":
        return json_response({"service": stock._sanitize(before)})
    if stock._resolve_td_key(data.get("taskDefinition", "")) not in stock._task_defs:
        return error_response_json("ClientException", "Unable to describe task definition.", 400)
    for entry in data.get("loadBalancers") or []:
        group = entry.get("targetGroupArn")
        if group and group not in targets.referenced_groups():
            message = f"The target group with targetGroupArn {group} does not have an associated load balancer."
            return error_response_json("InvalidParameterException", message, 400)
    answer = _stock_create_service(data)
    if token:
        _tokens[token] = key
    return answer


def _running_tasks(service):
    group = f"service:{service['serviceName']}"
    return [
        task
        for task in list(stock._tasks.values())
        if task.get("group") == group
        and task.get("clusterArn") == service["clusterArn"]
        and task.get("lastStatus") == "RUNNING"
    ]


def _target_states(service, task):
    for entry in service.get("loadBalancers") or []:
        if entry.get("targetGroupArn"):
            state = targets.health(entry["targetGroupArn"], stock._task_ip(task), entry.get("containerPort", 80))
            yield entry, state


def _is_healthy(service, task):
    if task.get("_has_health_check") and task.get("healthStatus") != "HEALTHY":
        return False
    return all(state == "healthy" for _, state in _target_states(service, task))


def _complete(cluster, key, expected_deployment_id=None):
    service = stock._services.get(key)
    primary = service and stock._primary_deployment(service)
    in_progress = primary and primary.get("rolloutState") == "IN_PROGRESS"
    if in_progress:
        healthy = [
            task
            for task in _running_tasks(service)
            if stock._deployment_for_task(service, task) is primary and _is_healthy(service, task)
        ]
        if len(healthy) < service.get("desiredCount", 0):
            return
    _stock_complete(cluster, key, expected_deployment_id)
    if in_progress and primary.get("rolloutState") == "COMPLETED":
        primary["rolloutStateReason"] = f"ECS deployment {primary['id']} completed."
        name = f"(service {service['serviceName']})"
        _event(service, f"{name} has reached a steady state.")
        _event(service, f"{name} (deployment {primary['id']}) deployment completed.")


def _event(service, message):
    service["events"].insert(0, {"id": stock.new_uuid(), "createdAt": stock._iso(), "message": message})


def _run_kwargs(container, *args, **options):
    made = _stock_run_kwargs(container, *args, **options)
    check = container.get("healthCheck")
    if check and check.get("command"):
        nanoseconds = 10**9
        made["healthcheck"] = {
            "test": check["command"],
            "interval": check.get("interval", 30) * nanoseconds,
            "timeout": check.get("timeout", 5) * nanoseconds,
            "retries": check.get("retries", 3),
            "start_period": check.get("startPeriod", 0) * nanoseconds,
        }
    return made


def _replace(service, task, reason, message):
    _event(service, message)
    cluster = stock._cluster_name_from_arn(task["clusterArn"])
    stock._stop_task({"task": task["taskArn"], "cluster": cluster, "reason": reason})
    task["stopCode"] = "ServiceSchedulerInitiated"
    stock._record_service_task_failure(task)


def _read_container_health(task):
    definition = stock._task_defs.get(stock._resolve_td_key(task["taskDefinitionArn"])) or {}
    for container, docker_id in zip(definition.get("containerDefinitions", []), task.get("_docker_ids", [])):
        if not container.get("healthCheck"):
            continue
        task["_has_health_check"] = True
        try:
            state = stock._get_docker().api.inspect_container(docker_id)["State"].get("Health", {}).get("Status")
        except Exception:
            continue
        task["healthStatus"] = {"healthy": "HEALTHY", "unhealthy": "UNHEALTHY"}.get(state, "UNKNOWN")
        for entry in task["containers"]:
            if entry["name"] == container["name"]:
                entry["healthStatus"] = task["healthStatus"]


def _look_after(service, task):
    _read_container_health(task)
    task.setdefault("_first_seen", time.monotonic())
    name = f"(service {service['serviceName']})"
    if time.monotonic() - task["_first_seen"] < float(service.get("healthCheckGracePeriodSeconds") or 0):
        return
    if task.get("healthStatus") == "UNHEALTHY":
        message = f"{name} (task {task['taskArn'].rsplit('/', 1)[-1]}) failed container health checks."
        _replace(service, task, "Task failed container health checks", message)
        return
    for entry, state in _target_states(service, task):
        if state == "unhealthy":
            group = f"(target-group {entry['targetGroupArn']})"
            message = (
                f"{name} (port {entry.get('containerPort')}) is unhealthy in {group} "
                "due to (reason Health checks failed)."
            )
            _replace(service, task, f"Task failed ELB health checks in {group}", message)
            return


def _watch():
    while True:
        time.sleep(0.25)
        try:
            for (_, _, key), service in list(stock._services.all_items()):
                if service.get("status") != "ACTIVE":
                    continue
                with scope_of(service["serviceArn"]):
                    for task in _running_tasks(service):
                        _look_after(service, task)
                    _complete(key.split("/", 1)[0], key)
        except Exception as error:
            print("lab: services:", repr(error), flush=True)


def _task_healthy(key, task):
    service = stock._services.get(key)
    if service and not _is_healthy(service, task):
        # RUNNING alone is not healthy: the failures so far still count.
        task["_startup_stable"] = True
        return None
    return _stock_task_healthy(key, task)


def _sync_targets(cluster, service):
    """Registers the tasks that run and takes the others out."""
    running = _running_tasks(service) if service.get("status") == "ACTIVE" else []
    for entry in service.get("loadBalancers") or []:
        group = entry.get("targetGroupArn")
        if not group:
            continue
        wanted = {stock._task_ip(task) for task in running} - {None}
        published = service.setdefault("_published_targets", {}).setdefault(group, set())
        for ip in wanted - published:
            targets.register(group, ip, entry.get("containerPort", 80))
        for ip in published - wanted:
            targets.deregister(group, ip, entry.get("containerPort", 80))
        service["_published_targets"][group] = wanted


def install():
    """Puts the mended parts in the place of ministack's."""
    stock._make_deployment = _make_deployment
    stock._create_service = _create_service
    stock._complete_service_deployment = _complete
    stock._build_run_kwargs = _run_kwargs
    stock._record_service_task_healthy = _task_healthy
    stock._sync_service_targets = _sync_targets
    stock._ACTION_MAP["CreateService"] = _create_service
    threading.Thread(target=_watch, daemon=True, name="lab-services").start()

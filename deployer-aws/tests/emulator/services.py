"""ECS services: the API. scheduler.py does what it asks for."""
import uuid

from ministack.core.responses import get_account_id, json_response
from ministack.services import ecs as stock

import targets
from ecs_records import Refused, arn, cluster_of, definition_of, handler, invalid, lock, network_problem, now, page_of
from ecs_records import view
from runner import runners
from scheduler import count, primary_of, tasks_of

SERVICE_ROLE = "aws-service-role/ecs.amazonaws.com/AWSServiceRoleForECS"

_stock_delete_cluster = stock._delete_cluster
_tokens = {}
# What replaces every task of a service when it is changed, and therefore makes a new deployment.
_DEPLOYED = ("networkConfiguration", "platformVersion", "loadBalancers", "capacityProviderStrategy",
             "serviceRegistries")
_KEPT = ("healthCheckGracePeriodSeconds", "enableExecuteCommand", "propagateTags", "enableECSManagedTags",
         "placementConstraints", "placementStrategy", "availabilityZoneRebalancing")


def _key(cluster, reference):
    return f"{cluster['clusterName']}/{(reference or '').rsplit('/', 1)[-1]}"


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
    primary = primary_of(service)
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
    if any(runner.task["clusterArn"] == cluster["clusterArn"] for runner in runners.values()):
        raise Refused("ClusterContainsTasksException", "The Cluster cannot be deleted while Tasks are active.")
    return _stock_delete_cluster(data)


def _service_view(service, include):
    count(service, tasks_of(service))
    shown = view(service, include)
    if service["status"] == "INACTIVE":
        shown["deployments"] = []
    return shown


def forget_tokens():
    """For a reset of the emulator."""
    with lock:
        _tokens.clear()


OPERATIONS = {
    "CreateService": _create_service,
    "UpdateService": _update_service,
    "DeleteService": _delete_service,
    "DescribeServices": _describe_services,
    "ListServices": _list_services,
    "DeleteCluster": _delete_cluster,
}

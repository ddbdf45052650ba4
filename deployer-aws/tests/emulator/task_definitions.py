"""Mends of ministack's ECS task definitions."""
import re

from ministack.core.responses import json_response
from ministack.services import ecs as stock

from ecs_records import Refused, definition_of, handler, page_of

_stock_register = stock._register_task_definition

# What Fargate can run: the memory in MiB that goes with each number of CPU units.
_FARGATE_MEMORY = {
    256: [512, 1024, 2048],
    512: range(1024, 4096 + 1, 1024),
    1024: range(2048, 8192 + 1, 1024),
    2048: range(4096, 16384 + 1, 1024),
    4096: range(8192, 30720 + 1, 1024),
    8192: range(16384, 61440 + 1, 4096),
    16384: range(32768, 122880 + 1, 8192),
}


def _client_error(message):
    return Refused("ClientException", message)


@handler
def _register(data):
    family = data.get("family") or ""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", family):
        raise _client_error("Family contains invalid characters.")
    containers = data.get("containerDefinitions") or []
    names = [container.get("name") for container in containers]
    if len(set(names)) < len(names):
        raise _client_error("Container names must be unique within a task definition.")
    if containers and not any(container.get("essential", True) for container in containers):
        raise _client_error("At least one container must be essential.")
    if "FARGATE" in (data.get("requiresCompatibilities") or []):
        _check_fargate(data, containers)
    else:
        for container in containers:
            if not (data.get("memory") or container.get("memory") or container.get("memoryReservation")):
                raise _client_error("Invalid setting for container. At least one of 'memory' or 'memoryReservation' "
                                    "must be specified.")
    for container in containers:
        for key in ("environment", "mountPoints", "volumesFrom", "portMappings", "systemControls"):
            container.setdefault(key, [])
        for mapping in container["portMappings"]:
            mapping.setdefault("protocol", "tcp")
            if data.get("networkMode") == "awsvpc":
                mapping.setdefault("hostPort", mapping["containerPort"])
    status, headers, body = _stock_register(data)
    if status != 200:
        return status, headers, body
    return json_response({"taskDefinition": _view(definition_of(family)), "tags": data.get("tags") or []})


def _view(definition):
    """Settings that were not given are left out; ministack gives them as empty texts."""
    return {key: value for key, value in definition.items() if value not in ("", None)}


def _check_fargate(data, containers):
    if data.get("networkMode") != "awsvpc":
        raise _client_error("Fargate only supports network mode \u2018awsvpc\u2019.")
    cpu, memory = data.get("cpu"), data.get("memory")
    if not cpu or not memory:
        raise _client_error("Fargate requires that 'cpu' and 'memory' be defined at the task level.")
    if not (str(cpu).isdigit() and str(memory).isdigit() and int(memory) in _FARGATE_MEMORY.get(int(cpu), ())):
        raise _client_error("No Fargate configuration exists for given values.")
    for container in containers:
        if container.get("stopTimeout", 30) > 120:
            raise _client_error("Invalid setting for container. stopTimeout must be at most 120 on Fargate.")
        needs_role = container.get("secrets") or (container.get("logConfiguration") or {}).get("logDriver") == "awslogs"
        if needs_role and not data.get("executionRoleArn"):
            what = "secrets" if container.get("secrets") else "log driver awslogs"
            raise _client_error(f"Fargate requires task definition to have execution role ARN to support {what}.")
        for mapping in container.get("portMappings") or []:
            if mapping.get("hostPort") not in (None, mapping["containerPort"]):
                raise _client_error("When networkMode=awsvpc, the host ports and container ports in port mappings "
                                    "must match.")


@handler
def _describe(data):
    definition = definition_of(data.get("taskDefinition"))
    if definition is None:
        raise _client_error("Unable to describe task definition.")
    answer = {"taskDefinition": _view(definition)}
    if "TAGS" in (data.get("include") or []):
        answer["tags"] = stock._tags.get(definition["taskDefinitionArn"], [])
    return json_response(answer)


@handler
def _list(data):
    family = data.get("familyPrefix")
    status = data.get("status") or "ACTIVE"
    found = [
        record
        for record in stock._task_defs.values()
        if record["status"] == status and (not family or record["family"] == family)
    ]
    found.sort(key=lambda record: (record["family"], record["revision"]), reverse=data.get("sort") == "DESC")
    page, following = page_of([record["taskDefinitionArn"] for record in found], data, 100)
    return json_response({"taskDefinitionArns": page, **following})


OPERATIONS = {
    "RegisterTaskDefinition": _register,
    "DescribeTaskDefinition": _describe,
    "ListTaskDefinitions": _list,
}

"""Cloud Map: what ministack gets wrong of it, the tasks of ECS in it, and the DNS server that tells of them to tasks.

Every task asks the server on Docker's bridge, which answers for the zones of namespaces and knows of nothing else.
"""
import ipaddress
import socket
import threading

from ministack.core.responses import error_response_json, json_response
from ministack.services import servicediscovery as stock

import containers
from ecs_records import lock
from scope import scope_of

_A, _IN = 1, 1
_NAME_ERROR = 3
_stock_create, _stock_delete = stock._create_service, stock._delete_service
_made = {}


def _create_service(data):
    asked = {field: value for field, value in data.items() if not field.startswith("_")}
    for service in stock._services.values():
        if service["NamespaceId"] == data.get("NamespaceId") and service["Name"] == data.get("Name"):
            if _made.get(service["Arn"]) == asked:
                return json_response({"Service": service})
            return error_response_json("ServiceAlreadyExists", f"Service already exists: {service['Id']}", 400)
    known = set(stock._services)
    answer = _stock_create(data)
    for service_id in set(stock._services) - known:
        _made[stock._services[service_id]["Arn"]] = asked
    return answer


def _delete_service(data):
    if stock._instances.get(data.get("Id")):
        return error_response_json("ResourceInUse", "Service contains registered instances.", 400)
    return _stock_delete(data)


def _list_services(data):
    found = list(stock._services.values())
    for condition in data.get("Filters") or []:
        if condition["Name"] == "NAMESPACE_ID":
            found = [service for service in found if service["NamespaceId"] in condition["Values"]]
    begin = int(data.get("NextToken") or 0)
    end = begin + int(data.get("MaxResults") or 100)
    following = {"NextToken": str(end)} if end < len(found) else {}
    return json_response({"Services": found[begin:end], **following})


def register(task):
    """Gives a task that runs its names."""
    for registry in task["_registries"]:
        stock._register_instance({
            "ServiceId": registry["registryArn"].rsplit("/", 1)[-1], "InstanceId": _instance(task),
            "Attributes": {"AWS_INSTANCE_IPV4": task["_container_ip"]},
        })


def deregister(task):
    """Takes a task's names away."""
    for registry in task["_registries"]:
        stock._deregister_instance({
            "ServiceId": registry["registryArn"].rsplit("/", 1)[-1], "InstanceId": _instance(task),
        })


def _instance(task):
    return task["taskArn"].rsplit("/", 1)[-1]


def _addresses(name):
    """The addresses of a name, in whichever account and region it is."""
    with lock:
        services = list(stock._services.all_items())
    for (account, region, service_id), service in services:
        with scope_of(f"arn:aws:servicediscovery:{region}:{account}:service/{service_id}"):
            namespace = stock._namespaces.get(service["NamespaceId"])
            if namespace and f"{service['Name']}.{namespace['Name']}".lower() == name:
                instances = list((stock._instances.get(service_id) or {}).values())
                return [instance["Attributes"]["AWS_INSTANCE_IPV4"] for instance in instances]
    return []


def _answer(question):
    """The answer to a question of DNS (RFC 1035, section 4): the addresses of its name, or that there is no such name."""
    labels, at = [], 12
    while question[at]:
        labels.append(question[at + 1:at + 1 + question[at]].decode("ascii", "replace"))
        at += 1 + question[at]
    kind = int.from_bytes(question[at + 1:at + 3], "big")
    found = _addresses(".".join(labels).lower())
    records = [socket.inet_aton(address) for address in found] if kind == _A else []
    flags = 0x8580 if found else 0x8580 | _NAME_ERROR
    header = question[:2] + flags.to_bytes(2, "big") + (1).to_bytes(2, "big") + len(records).to_bytes(2, "big") + bytes(4)
    record = b"\xc0\x0c" + _A.to_bytes(2, "big") + _IN.to_bytes(2, "big") + (0).to_bytes(4, "big") + (4).to_bytes(2, "big")
    return header + question[12:at + 5] + b"".join(record + address for address in records)


def _serve(listener):
    while True:
        question, asker = listener.recvfrom(512)
        try:
            listener.sendto(_answer(question), asker)
        except Exception as error:
            print("lab: names:", repr(error), flush=True)


def install():
    """Puts the mended operations in the place of ministack's, and starts the server."""
    stock._create_service, stock._delete_service = _create_service, _delete_service
    stock._list_services = _list_services
    try:
        network = containers.engine().api.inspect_network("bridge")["IPAM"]["Config"][0]
        # An engine that has just made its bridge does not tell the gateway before it is started again.
        gateway = network.get("Gateway") or str(next(ipaddress.ip_network(network["Subnet"]).hosts()))
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listener.bind((gateway, 53))
    except Exception as error:
        print("lab: no names for tasks:", repr(error), flush=True)
        return
    containers.name_server = gateway
    threading.Thread(target=_serve, args=(listener,), daemon=True, name="lab-names").start()

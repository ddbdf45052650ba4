"""What tasks.py and services.py share: the lock of all ECS records, look-ups, paging and errors."""
import threading
import time

from ministack.core.responses import error_response_json, get_account_id, get_region
from ministack.services import ecs as stock

# Guards every ECS record. It is held for moments only, never while Docker is asked for something.
lock = threading.RLock()


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message):
    return Refused("InvalidParameterException", message)


def handler(function):
    """An API operation: runs under the lock and answers refusals as the service does."""

    def handle(data):
        try:
            with lock:
                return function(data)
        except Refused as refusal:
            return error_response_json(refusal.code, refusal.message, 400)

    return handle


def now():
    return round(time.time(), 3)


def arn(resource):
    return f"arn:aws:ecs:{get_region()}:{get_account_id()}:{resource}"


def cluster_of(data):
    """The cluster that a request is about."""
    name = stock._resolve_cluster_name(data.get("cluster") or "default")
    cluster = stock._clusters.get(name)
    if cluster is None or cluster["status"] != "ACTIVE":
        raise Refused("ClusterNotFoundException", "Cluster not found.")
    return cluster


def definition_of(reference):
    """The task definition that a reference names: an ARN, `family:revision`, or a family, which means its latest."""
    name = (reference or "").rsplit("task-definition/", 1)[-1]
    if ":" in name:
        return stock._task_defs.get(name)
    revisions = [record for record in stock._task_defs.values() if record["family"] == name]
    active = [record for record in revisions if record["status"] == "ACTIVE"]
    return max(active, key=lambda record: record["revision"], default=None)


def page_of(records, data, default):
    """One page of a listing and the token of the next."""
    size = int(data.get("maxResults") or default)
    if not 1 <= size <= 100:
        raise invalid("maxResults must be between 1 and 100.")
    try:
        start = int(data.get("nextToken") or 0)
    except ValueError:
        raise invalid("Invalid token.") from None
    following = {"nextToken": str(start + size)} if start + size < len(records) else {}
    return records[start : start + size], following


def network_problem(data, definition):
    """Raises if a request does not bring the network that its task definition needs."""
    configuration = (data.get("networkConfiguration") or {}).get("awsvpcConfiguration")
    if definition["networkMode"] == "awsvpc" and not configuration:
        raise invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified.")
    if definition["networkMode"] != "awsvpc" and configuration:
        raise invalid("Network Configuration is not valid for the given networkMode of this task definition.")
    if configuration and not configuration.get("subnets"):
        raise invalid("subnets can not be empty.")


def view(record, include):
    """A record as an API answer: without internals, and with its tags only if they were asked for."""
    shown = stock._sanitize(record)
    shown.pop("tags", None)
    if "TAGS" in include:
        shown["tags"] = stock._tags.get(record.get("taskArn") or record["serviceArn"], [])
    return shown

"""The containers of a task on the Docker Engine: images, creation, logs."""
import json
import os
import re
import threading
import time
from datetime import datetime

import docker
from ministack.core import container_reaper
from ministack.services import cloudwatch_logs
from ministack.services import ecs as stock
from ministack.services import secretsmanager, ssm

from scope import scope_of
from targets import INITIAL_INTERVAL

PORT = os.environ.get("GATEWAY_PORT", "4566")
_REGISTRY = f"127.0.0.1:{PORT}/"
_REAL_REGISTRY = re.compile(r"^\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(\.cn)?/")
_NANOSECONDS = 10**9
_MEBIBYTE = 1024 * 1024

# What the network of a task is held with, and where tasks ask for names, if anywhere.
_PAUSE_IMAGE = "busybox:1.36"
name_server = None

_client = None
_client_lock = threading.Lock()


class StartFailed(Exception):
    """A task that cannot start; the text is the reason that the API gives."""


def engine():
    """The client of the Docker Engine; without a timeout, for it follows logs and waits for exits."""
    global _client
    with _client_lock:
        if _client is None:
            _client = docker.from_env(timeout=None, max_pool_size=100)
        return _client


def local_name(image):
    """The name under which Docker can pull an image: the registry of ECR is served by the emulator."""
    return _REAL_REGISTRY.sub(_REGISTRY, image)


def provide_image(image):
    """Makes an image available and returns its name here and its digest. The emulator's registry is always asked."""
    name = local_name(image)
    if not name.startswith(_REGISTRY):
        try:
            return name, _digest(engine().images.get(name), name)
        except docker.errors.ImageNotFound:
            pass
    try:
        repository, tag = _split(name)
        found = engine().images.pull(repository, tag=tag)
    except docker.errors.APIError as error:
        text = "CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref"
        raise StartFailed(f"{text} {image}: {error.explanation or error}") from error
    return name, _digest(found, name)


def _split(name):
    if "@" in name:
        repository, _, digest = name.partition("@")
        return repository, digest
    path, _, last = name.rpartition("/")
    base, _, tag = last.partition(":")
    return (f"{path}/{base}" if path else base), tag or "latest"


def _digest(image, name):
    repository, tag = _split(name)
    if tag.startswith("sha256:"):
        return tag
    for entry in image.attrs.get("RepoDigests") or []:
        if entry.startswith(repository + "@"):
            return entry.partition("@")[2]
    return None


def create(task, definition, container, override, environment, image, network_of):
    """Creates one container of a task; `network_of` is the container whose network it shares, if any."""
    try:
        return engine().containers.create(
            image,
            name=f"ministack-ecs-{task['taskArn'].rsplit('/', 1)[-1][:12]}-{container['name']}",
            **_settings(task, definition, container, override, environment, network_of),
        )
    except docker.errors.ImageNotFound as error:
        raise StartFailed(f"CannotPullContainerError: {error.explanation or error}") from error
    except docker.errors.APIError as error:
        raise StartFailed(f"CannotCreateContainerError: {error.explanation or error}") from error


def pause(task):
    """Creates the container whose network the others of a task share."""
    try:
        return engine().containers.create(
            _PAUSE_IMAGE, ["sleep", "2147483647"], name=f"ministack-ecs-{task['taskArn'].rsplit('/', 1)[-1][:12]}",
            labels=container_reaper.own_labels("ecs"), init=True, **_names(),
        )
    except docker.errors.APIError as error:
        raise StartFailed(f"CannotCreateContainerError: {error.explanation or error}") from error


def _names():
    return {"dns": [name_server]} if name_server else {}


def _settings(task, definition, container, override, environment, network_of):
    linux = container.get("linuxParameters") or {}
    settings = {
        "command": override.get("command") or container.get("command"),
        "entrypoint": container.get("entryPoint"),
        "environment": environment,
        "labels": _labels(task, definition, container),
        "working_dir": container.get("workingDirectory"),
        "user": container.get("user"),
        "read_only": bool(container.get("readonlyRootFilesystem")),
        "privileged": bool(container.get("privileged")),
        "init": bool(linux.get("initProcessEnabled")) or None,
        "cap_add": (linux.get("capabilities") or {}).get("add"),
        "cap_drop": (linux.get("capabilities") or {}).get("drop"),
        "volumes": stock._docker_binds_from_taskdef(definition, container),
        "cpu_shares": int(override.get("cpu") or container.get("cpu") or 0) or None,
        "ulimits": [
            docker.types.Ulimit(name=limit["name"], soft=limit["softLimit"], hard=limit["hardLimit"])
            for limit in container.get("ulimits") or []
        ],
        "healthcheck": _health_check(container),
    }
    memory = int(override.get("memory") or container.get("memory") or definition.get("memory") or 0)
    if memory:
        settings["mem_limit"] = memory * _MEBIBYTE
        settings["memswap_limit"] = memory * _MEBIBYTE
    if network_of:
        settings["network_mode"] = f"container:{network_of}"
    elif definition["networkMode"] in ("host", "none"):
        settings["network_mode"] = definition["networkMode"]
    else:
        settings.update(_names(), extra_hosts={"host.docker.internal": "host-gateway"})
    if definition["networkMode"] == "bridge":
        settings["ports"] = {
            f"{mapping['containerPort']}/{mapping.get('protocol', 'tcp')}": mapping.get("hostPort") or None
            for mapping in container.get("portMappings") or []
        }
    return {name: value for name, value in settings.items() if value is not None}


def _labels(task, definition, container):
    return {
        **(container.get("dockerLabels") or {}),
        **container_reaper.own_labels("ecs"),
        "com.amazonaws.ecs.cluster": task["clusterArn"],
        "com.amazonaws.ecs.container-name": container["name"],
        "com.amazonaws.ecs.task-arn": task["taskArn"],
        "com.amazonaws.ecs.task-definition-family": definition["family"],
        "com.amazonaws.ecs.task-definition-version": str(definition["revision"]),
    }


def _health_check(container):
    check = container.get("healthCheck") or {}
    if not check.get("command"):
        return None
    return {
        "test": check["command"],
        "interval": check.get("interval", 30) * _NANOSECONDS,
        "timeout": check.get("timeout", 5) * _NANOSECONDS,
        "retries": check.get("retries", 3),
        "start_period": check.get("startPeriod", 0) * _NANOSECONDS,
    }


class FirstCheck:
    """Runs the health check of a container until it first succeeds, more often than its interval says.

    Docker first checks after a whole interval, which is 5 seconds or more; tests need not wait for it.
    """

    def __init__(self, container_id, command):
        self.container_id = container_id
        kind, *rest = command
        self.command = ["/bin/sh", "-c", " ".join(rest)] if kind == "CMD-SHELL" else rest
        self.running = None
        self.began_at = 0.0
        self.succeeded = False

    def has_succeeded(self):
        try:
            self._advance()
        except docker.errors.APIError:
            self.running = None
        return self.succeeded

    def _advance(self):
        if self.running:
            details = engine().api.exec_inspect(self.running)
            if not details["Running"]:
                self.succeeded = self.succeeded or details["ExitCode"] == 0
                self.running = None
        elif not self.succeeded and time.monotonic() - self.began_at >= INITIAL_INTERVAL:
            self.began_at = time.monotonic()
            self.running = engine().api.exec_create(self.container_id, self.command)["Id"]
            engine().api.exec_start(self.running, detach=True)


def remove(container_id):
    """Removes a container, which may be gone already."""
    try:
        engine().api.remove_container(container_id, v=True, force=True)
    except docker.errors.APIError:
        pass


def inspect(container_id):
    """What Docker knows of a container, or None if it is gone."""
    try:
        return engine().api.inspect_container(container_id)
    except docker.errors.NotFound:
        return None


def wait_for_exit(container_id):
    """Returns the exit code of a container and whether it was killed for want of memory, as soon as it has ended."""
    code = 137
    while True:
        try:
            code = engine().api.wait(container_id)["StatusCode"]
        except docker.errors.NotFound:
            return code, False
        except Exception:
            # The engine may be restarting; whether the container runs is asked below.
            time.sleep(1)
        try:
            details = inspect(container_id)
        except Exception:
            continue
        if details is None:
            return code, False
        if not details["State"]["Running"]:
            return details["State"]["ExitCode"], bool(details["State"].get("OOMKilled"))


def secrets_of(container):
    """The secrets of a container by the name of their variable, decrypted."""
    found = {}
    for secret in container.get("secrets") or []:
        source = secret["valueFrom"]
        if ":secretsmanager:" in source:
            found[secret["name"]] = _secret(source)
        else:
            found[secret["name"]] = ssm.resolve_parameter_value(source, decrypt=True)
        if found[secret["name"]] is None:
            service = "asm" if ":secretsmanager:" in source else "ssm"
            raise StartFailed(
                "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval "
                f"failed: unable to retrieve secret from {service}: service call has been retried 1 time(s): "
                f"ResourceNotFoundException: cannot find the secret {source} of the variable {secret['name']}"
            )
    return found


def _secret(source):
    """The value of a secret: its ARN, and behind it, all optional, a key of its JSON, a stage and a version."""
    parts = source.split(":")
    key, stage, version = (parts[7:] + ["", "", ""])[:3]
    value = secretsmanager.resolve_secret_string(":".join(parts[:7]), stage or "AWSCURRENT", version or None)
    if value is None or not key:
        return value
    try:
        return str(json.loads(value)[key])
    except (ValueError, KeyError, TypeError):
        return None


def log_options(container):
    """The options of the awslogs driver of a container, or None."""
    configuration = container.get("logConfiguration") or {}
    if configuration.get("logDriver") != "awslogs":
        return None
    return configuration.get("options") or {}


def check_log_group(container):
    """Raises if the log group of a container does not exist and is not to be made."""
    options = log_options(container)
    if options is None:
        return
    group = options.get("awslogs-group")
    if group in cloudwatch_logs._log_groups:
        return
    if str(options.get("awslogs-create-group")).lower() == "true":
        cloudwatch_logs._create_log_group({"logGroupName": group})
        return
    raise StartFailed(
        "ResourceInitializationError: failed to validate logger args: create stream has been retried 1 times: "
        "failed to create Cloudwatch log stream: ResourceNotFoundException: "
        "The specified log group does not exist."
    )


def follow_logs(task_arn, container, container_id):
    """Passes what a container writes on to CloudWatch Logs until it ends."""
    options = log_options(container)
    prefix = options.get("awslogs-stream-prefix")
    task_id = task_arn.rsplit("/", 1)[-1]
    stream = f"{prefix}/{container['name']}/{task_id}" if prefix else container_id
    with scope_of(task_arn):
        cloudwatch_logs._create_log_stream({"logGroupName": options["awslogs-group"], "logStreamName": stream})
        try:
            rest = b""
            for chunk in engine().api.logs(container_id, stream=True, follow=True, timestamps=True):
                *lines, rest = (rest + chunk).split(b"\n")
                _put_lines(options["awslogs-group"], stream, lines)
            _put_lines(options["awslogs-group"], stream, [rest])
        except Exception as error:
            print("lab: logs:", repr(error), flush=True)


def _put_lines(group, stream, lines):
    events = []
    for line in lines:
        when, _, message = line.partition(b" ")
        message = message.decode(errors="replace").rstrip("\r")
        if message:
            events.append({"timestamp": _milliseconds(when.decode()), "message": message})
    if events:
        cloudwatch_logs._put_log_events({"logGroupName": group, "logStreamName": stream, "logEvents": events})


def _milliseconds(timestamp):
    seconds, _, fraction = timestamp.rstrip("Z").partition(".")
    whole = datetime.fromisoformat(seconds + "+00:00").timestamp()
    return int(whole) * 1000 + int((fraction + "000")[:3])

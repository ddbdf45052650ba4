"""Runs one ECS task in a thread of its own, from PROVISIONING to STOPPED, so that no API call waits for Docker.

A task that stops first leaves its target groups (DEACTIVATING, for their deregistration delay), then its containers get
their stop signal (STOPPING), and SIGKILL when their stopTimeout is over.
"""
import queue
import threading
import time

from ministack.services import ecs as stock
from ministack.services import ecs_metadata

import containers
import names
import targets
from containers import StartFailed
from ecs_records import lock, now
from scope import scope_of

DEFAULT_STOP_TIMEOUT = 30
PENDING = ("PROVISIONING", "PENDING", "ACTIVATING")

# The runner of each task that is not STOPPED.
runners = {}
# Called with a task of a service that ended, or is to be ended, because of a fault of its own.
on_failure = []


class Runner:
    """Runs one task."""

    def __init__(self, task, definition):
        self.task = task
        self.definition = definition
        self.events = queue.SimpleQueue()
        self.abandoned = False
        self.ids = {}
        self.exited = set()
        self.log_threads = []
        self.network_of = None
        self.drain_until = None
        self.first_checks = {}

    def start(self):
        runners[self.task["taskArn"]] = self
        name = f"lab-task-{self.task['taskArn'].rsplit('/', 1)[-1][:8]}"
        threading.Thread(target=self._run, daemon=True, name=name).start()

    # -- what others may call, under the lock --
    def stop(self, reason, code):
        """Asks the task to stop: it gets no new request from now on, and ends when it has drained."""
        if self.task["desiredStatus"] == "STOPPED":
            return
        self.task["desiredStatus"] = "STOPPED"
        self.task["stoppedReason"] = reason
        self.task["stopCode"] = code
        stock._bump_task_version(self.task)
        if self.task["lastStatus"] == "RUNNING":
            self.task["lastStatus"] = "DEACTIVATING"
        self.drain_until = time.monotonic() + self._deregister()
        self.events.put(("stop", None))

    def abandon(self):
        """Ends the task at once and without a trace, for a reset of the emulator."""
        self.abandoned = True
        self.task["desiredStatus"] = "STOPPED"
        self.events.put(("stop", None))

    # -- the thread --
    def _run(self):
        with scope_of(self.task["taskArn"]):
            try:
                self._start_containers()
                if not self._is_stopping():
                    self._watch()
                self._drain()
                self._end_containers()
            except StartFailed as failure:
                self._fail(str(failure))
            except Exception as error:
                print("lab: task:", repr(error), flush=True)
                self._fail(f"ResourceInitializationError: {error}")
            finally:
                self._finish()

    def _is_stopping(self):
        return self.abandoned or self.task["desiredStatus"] == "STOPPED"

    def _set_status(self, status):
        with lock:
            if not self._is_stopping():
                self.task["lastStatus"] = status
                if status != "ACTIVATING":
                    stock._bump_task_version(self.task)
        ecs_metadata.set_task_status(self.task["taskArn"], known_status=status)

    def _start_containers(self):
        self._set_status("PENDING")
        environments = {}
        for container in self.definition["containerDefinitions"]:
            environments[container["name"]] = self._environment(container)
            containers.check_log_group(container)
        self._set_status("ACTIVATING")
        self.task["pullStartedAt"] = now()
        images = {}
        for container in self.definition["containerDefinitions"]:
            images[container["name"]] = self._provide_image(container)
        self.task["pullStoppedAt"] = now()
        for container in self._in_order():
            self._wait_for_dependencies(container)
            if self._is_stopping():
                return
            self._start_container(container, environments[container["name"]], images[container["name"]])
        self._record_address()
        with lock:
            if self._is_stopping():
                return
            self._register()
            self.task["lastStatus"] = "RUNNING"
            self.task["startedAt"] = now()
            stock._bump_task_version(self.task)
        ecs_metadata.set_task_status(self.task["taskArn"], known_status="RUNNING")

    def _in_order(self):
        """The containers, those that others depend on first."""
        waiting = list(self.definition["containerDefinitions"])
        done = set()
        while waiting:
            ready = [
                container
                for container in waiting
                if all(entry["containerName"] in done for entry in container.get("dependsOn") or [])
            ]
            for container in ready or waiting:
                done.add(container["name"])
                yield container
            waiting = [container for container in waiting if container["name"] not in done]

    def _wait_for_dependencies(self, container):
        for entry in container.get("dependsOn") or []:
            docker_id = self.ids[entry["containerName"]]
            while not self._is_stopping() and not _condition_holds(entry, docker_id):
                time.sleep(0.2)

    def _override(self, container):
        for override in (self.task.get("overrides") or {}).get("containerOverrides") or []:
            if override.get("name") == container["name"]:
                return override
        return {}

    def _environment(self, container):
        made = {entry["name"]: entry["value"] for entry in container.get("environment") or []}
        made.update(containers.secrets_of(container))
        made.update({entry["name"]: entry["value"] for entry in self._override(container).get("environment") or []})
        token = stock._register_metadata(
            self.task["taskArn"], self.task["clusterArn"], self.definition, container, self.task["launchType"], made,
            False, None,
        )
        self.task["_metadata_tokens"].append(token)
        return made

    def _record(self, container):
        return next(record for record in self.task["containers"] if record["name"] == container["name"])

    def _provide_image(self, container):
        try:
            image, digest = containers.provide_image(container["image"])
        except StartFailed as failure:
            self._record(container)["reason"] = str(failure)
            raise
        if digest:
            self._record(container)["imageDigest"] = digest
        return image

    def _start_container(self, container, environment, image):
        record = self._record(container)
        try:
            if self.definition["networkMode"] == "awsvpc" and not self.network_of:
                self._start_pause()
            made = containers.create(
                self.task, self.definition, container, self._override(container), environment, image, self.network_of
            )
            self.ids[container["name"]] = made.id
            self.task["_docker_ids"].append(made.id)
            if self.abandoned:
                return
            made.start()
        except StartFailed as failure:
            record["reason"] = str(failure)
            raise
        except containers.docker.errors.APIError as error:
            record["reason"] = f"CannotStartContainerError: {error.explanation or error}"
            raise StartFailed(record["reason"]) from error
        record["runtimeId"] = made.id
        record["lastStatus"] = "RUNNING"
        ecs_metadata.set_docker_id(self.task["_metadata_tokens"][-1], made.id)
        threading.Thread(target=self._await_exit, args=(container["name"], made.id), daemon=True).start()
        if containers.log_options(container) is not None:
            follower = threading.Thread(
                target=containers.follow_logs, args=(self.task["taskArn"], container, made.id), daemon=True
            )
            follower.start()
            self.log_threads.append(follower)

    def _start_pause(self):
        """The network of a task with several containers is that of one more, which does nothing and ends last."""
        if len(self.definition["containerDefinitions"]) > 1:
            made = containers.pause(self.task)
            self.task["_docker_ids"].append(made.id)
            made.start()
            self.network_of = made.id

    def _await_exit(self, name, docker_id):
        self.events.put(("exit", (name, *containers.wait_for_exit(docker_id))))

    def _record_address(self):
        """Notes the address of the task, which is that of the container whose network all have."""
        details = containers.inspect(self.network_of or next(iter(self.ids.values())))
        networks = list(((details or {}).get("NetworkSettings") or {}).get("Networks", {}).values())
        address = networks[0].get("IPAddress") if networks else None
        if not address:
            return
        self.task["_container_ip"] = address
        if self.definition["networkMode"] == "awsvpc":
            attachment = self.task["attachments"][0]
            attachment["status"] = "ATTACHED"
            attachment["details"].append({"name": "macAddress", "value": networks[0].get("MacAddress", "")})
            attachment["details"].append({"name": "privateIPv4Address", "value": address})
            for record in self.task["containers"]:
                record["networkInterfaces"] = [
                    {"attachmentId": attachment["id"], "privateIpv4Address": address}
                ]
            return
        for container in self.definition["containerDefinitions"]:
            self._record(container)["networkBindings"] = _bindings(containers.inspect(self.ids[container["name"]]))

    def _register(self):
        if not self.task.get("_container_ip"):
            # It has ended already.
            return
        for entry in self.task["_load_balancers"]:
            targets.register(entry["targetGroupArn"], self.task["_container_ip"], entry["containerPort"])
        names.register(self.task)

    def _deregister(self):
        """Takes the task out of its target groups and its names away; returns for how long it has to drain."""
        names.deregister(self.task)
        delays = [0.0]
        for entry in self.task["_load_balancers"]:
            if self.task.get("_container_ip"):
                delays.append(
                    targets.deregister(entry["targetGroupArn"], self.task["_container_ip"], entry["containerPort"])
                )
        return max(delays)

    def _watch(self):
        """Until the task is asked to stop, or an essential container ends."""
        has_checks = any(container.get("healthCheck") for container in self.definition["containerDefinitions"])
        while not self._is_stopping():
            try:
                kind, value = self.events.get(timeout=0.25 if has_checks else None)
            except queue.Empty:
                self._read_health()
                continue
            if kind == "exit":
                self._record_exit(*value)
                if self._has_ended():
                    self._end_of_itself()
                    return

    def _has_ended(self):
        essential = {
            container["name"]
            for container in self.definition["containerDefinitions"]
            if container.get("essential", True)
        }
        return bool(essential & self.exited) or len(self.exited) == len(self.ids)

    def _end_of_itself(self):
        with lock:
            if self._is_stopping():
                return
            self.task["desiredStatus"] = "STOPPED"
            self.task["lastStatus"] = "DEACTIVATING"
            self.task["stopCode"] = "EssentialContainerExited"
            self.task["stoppedReason"] = "Essential container in task exited"
            self._deregister()
            # Its containers are gone: there is nothing to drain.
            self.drain_until = 0
            self._tell_of_failure()

    def _tell_of_failure(self):
        for callback in on_failure:
            callback(self.task)

    def _record_exit(self, name, code, out_of_memory):
        with lock:
            self.exited.add(name)
            record = next(record for record in self.task["containers"] if record["name"] == name)
            record["lastStatus"] = "STOPPED"
            record["exitCode"] = code
            if out_of_memory:
                record["reason"] = "OutOfMemoryError: Container killed due to memory usage"

    def _read_health(self):
        found = []
        for container in self.definition["containerDefinitions"]:
            if not container.get("healthCheck") or container["name"] in self.exited:
                continue
            details = containers.inspect(self.ids[container["name"]])
            state = ((details or {}).get("State") or {}).get("Health", {}).get("Status")
            health = {"healthy": "HEALTHY", "unhealthy": "UNHEALTHY"}.get(state, "UNKNOWN")
            if state == "starting" and self._first_check(container).has_succeeded():
                health = "HEALTHY"
            self._record(container)["healthStatus"] = health
            if container.get("essential", True):
                found.append(health)
        for worst in ("UNHEALTHY", "UNKNOWN", "HEALTHY"):
            if worst in found:
                self.task["healthStatus"] = worst
                return

    def _first_check(self, container):
        name = container["name"]
        if name not in self.first_checks:
            self.first_checks[name] = containers.FirstCheck(self.ids[name], container["healthCheck"]["command"])
        return self.first_checks[name]

    def _drain(self):
        """Leaves requests in flight the time that their target group gives them."""
        while not self.abandoned and not (self.ids and self._has_ended()):
            left = self.drain_until - time.monotonic()
            if left <= 0:
                return
            try:
                kind, value = self.events.get(timeout=left)
            except queue.Empty:
                return
            if kind == "exit":
                self._record_exit(*value)

    def _end_containers(self):
        if self.abandoned:
            return
        with lock:
            self.task["lastStatus"] = "STOPPING"
            self.task["stoppingAt"] = now()
        began = time.monotonic()
        deadlines = {}
        for container in self.definition["containerDefinitions"]:
            name = container["name"]
            if name in self.ids and name not in self.exited:
                self._signal(name, None)
                deadlines[name] = began + container.get("stopTimeout", DEFAULT_STOP_TIMEOUT)
        while not self.abandoned and (left := {name: at for name, at in deadlines.items() if name not in self.exited}):
            try:
                kind, value = self.events.get(timeout=max(0.01, min(left.values()) - time.monotonic()))
            except queue.Empty:
                for name, at in left.items():
                    if at <= time.monotonic():
                        self._signal(name, "SIGKILL")
                        deadlines[name] = time.monotonic() + 5
                continue
            if kind == "exit":
                self._record_exit(*value)

    def _signal(self, name, signal):
        try:
            if signal is None:
                details = containers.inspect(self.ids[name]) or {}
                signal = details.get("Config", {}).get("StopSignal") or "SIGTERM"
            containers.engine().api.kill(self.ids[name], signal)
        except containers.docker.errors.APIError:
            # It has ended in the meantime.
            pass

    def _fail(self, reason):
        with lock:
            asked = self.task["desiredStatus"] == "STOPPED"
            if not asked:
                self.task["desiredStatus"] = "STOPPED"
                self.task["stopCode"] = "TaskFailedToStart"
                self.task["stoppedReason"] = reason
            self.task["stoppingAt"] = now()
            self._deregister()
            if not asked and not self.abandoned:
                self._tell_of_failure()

    def _finish(self):
        for follower in self.log_threads:
            if not self.abandoned and len(self.exited) == len(self.ids):
                follower.join(2)
        if not self.abandoned:
            with lock:
                self.task["lastStatus"] = "DEPROVISIONING"
                self.task["executionStoppedAt"] = now()
        pauses = [self.network_of] if self.network_of else []
        for docker_id in [*reversed(self.ids.values()), *pauses]:
            try:
                containers.remove(docker_id)
            except Exception as error:
                print("lab: cannot remove a container:", repr(error), flush=True)
        for token in self.task["_metadata_tokens"]:
            ecs_metadata.unregister_token(token)
        with lock:
            runners.pop(self.task["taskArn"], None)
            for record in self.task["containers"]:
                record["lastStatus"] = "STOPPED"
            for attachment in self.task["attachments"]:
                attachment["status"] = "DELETED"
            self.task["lastStatus"] = "STOPPED"
            self.task["stoppedAt"] = now()
            self.task["_docker_ids"] = []
            stock._bump_task_version(self.task)


def _condition_holds(entry, docker_id):
    details = containers.inspect(docker_id)
    state = (details or {}).get("State") or {}
    if entry["condition"] == "HEALTHY":
        return (state.get("Health") or {}).get("Status") == "healthy"
    if entry["condition"] in ("COMPLETE", "SUCCESS"):
        if state.get("Running"):
            return False
        if entry["condition"] == "SUCCESS" and state.get("ExitCode"):
            raise StartFailed("Dependency container did not succeed")
    return True


def _bindings(details):
    found = []
    ports = ((details or {}).get("NetworkSettings") or {}).get("Ports") or {}
    for port, hosts in ports.items():
        number, _, protocol = port.partition("/")
        for host in hosts or []:
            found.append({
                "bindIP": host["HostIp"], "containerPort": int(number), "hostPort": int(host["HostPort"]),
                "protocol": protocol,
            })
    return found

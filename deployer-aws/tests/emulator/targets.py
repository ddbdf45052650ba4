"""Targets of target groups: registration, health by real probes, draining, and which of them gets a request.

ministack keeps the list of registered targets (`alb._targets`); the state of each is kept here, by group, id and port.
"""
import asyncio
import itertools
import threading
import time

from ministack.services import alb as stock

from scope import scope_of, seconds

# New targets are probed this often, if that is more often than their group's interval: tests need not wait for it.
INITIAL_INTERVAL = seconds("LAB_HEALTH_INTERVAL", 1)
TICK = 0.1

_lock = threading.RLock()
_states = {}
_turns = {}


class Target:
    """One target of one group."""

    def __init__(self, group_arn, id, port):
        self.group_arn = group_arn
        self.id = id
        self.port = port
        self.draining_until = None
        self.connections = set()
        self.start_again()

    def start_again(self):
        self.state = "initial"
        self.reason = "Elb.RegistrationInProgress"
        self.description = "Target registration is in progress"
        self.successes = 0
        self.failures = 0
        self.failure_counted_at = 0.0
        self.probed_at = 0.0
        self.probing = False

    def set_state(self, state, reason="", description=""):
        self.state = state
        self.reason = reason
        self.description = description

    def succeeded(self, healthy_threshold):
        """One success makes a new target healthy; one that was unhealthy needs as many as the group says."""
        self.successes += 1
        self.failures = 0
        if self.state == "initial" or self.successes >= healthy_threshold:
            self.set_state("healthy")

    def failed(self, reason, description, unhealthy_threshold, interval):
        """Failures count once an interval, however often a new target is probed."""
        self.successes = 0
        now = time.monotonic()
        if now - self.failure_counted_at < interval - TICK:
            return
        self.failure_counted_at = now
        self.failures += 1
        if self.failures >= unhealthy_threshold:
            self.set_state("unhealthy", reason, description)
        elif self.state == "initial":
            self.reason = "Elb.InitialHealthChecking"
            self.description = "Initial health checks in progress"


def attribute(group_arn, key, default):
    """The value of an attribute of a target group."""
    for entry in stock._tg_attrs.get(group_arn, []):
        if entry["Key"] == key:
            return entry["Value"]
    return default


def _port_of(entry, group_arn):
    return int(entry.get("Port") or stock._tgs.get(group_arn, {}).get("Port") or 80)


def _state(group_arn, entry):
    key = (group_arn, entry["Id"], _port_of(entry, group_arn))
    target = _states.get(key)
    if target is None or target.draining_until is not None:
        target = Target(*key)
        _states[key] = target
    return target


def registered(group_arn):
    """The registered targets of a group, those that drain not among them."""
    with _lock:
        return [_state(group_arn, entry) for entry in stock._targets.get(group_arn, [])]


def register(group_arn, id, port=None):
    """Registers a target; one that is registered already stays as it is."""
    with _lock:
        if group_arn not in stock._tgs:
            return
        entry = {"Id": id, "Port": int(port or stock._tgs[group_arn].get("Port") or 80)}
        entries = stock._targets.setdefault(group_arn, [])
        if entry not in entries:
            stock._targets[group_arn] = [*entries, entry]
        _state(group_arn, entry)


def deregister(group_arn, id, port=None):
    """Takes a target out: no new request reaches it, and it drains for the delay of its group, which is returned."""
    with _lock:
        delay = float(attribute(group_arn, "deregistration_delay.timeout_seconds", 300))
        kept = []
        drained = False
        for entry in stock._targets.get(group_arn, []):
            if entry["Id"] != id or (port and _port_of(entry, group_arn) != int(port)):
                kept.append(entry)
                continue
            drained = True
            target = _state(group_arn, entry)
            if target.state == "unused":
                _states.pop((group_arn, target.id, target.port), None)
                continue
            target.draining_until = time.monotonic() + delay
            target.set_state("draining", "Target.DeregistrationInProgress", "Target deregistration is in progress")
        if group_arn in stock._targets:
            stock._targets[group_arn] = kept
        return delay if drained else 0.0


def health(group_arn, id, port):
    """The state of a target, or None if the group does not know it."""
    with _lock:
        target = _states.get((group_arn, id, int(port)))
        return target.state if target else None


def all_of(group_arn):
    """The registered targets of a group and those that still drain."""
    with _lock:
        present = registered(group_arn)
        draining = [target for (arn, _, _), target in _states.items() if arn == group_arn and target.draining_until]
        return present + draining


def choose(group_arn):
    """The targets that may get a request, best first: healthy ones in turn, all unhealthy ones if no other is there."""
    with _lock:
        present = registered(group_arn)
        able = [target for target in present if target.state == "healthy"]
        if not able:
            able = [target for target in present if target.state == "unhealthy"]
        if not able:
            return []
        first = next(_turns.setdefault(group_arn, itertools.count())) % len(able)
        return able[first:] + able[:first]


def referenced_groups():
    """The target groups that a rule or a listener of the current account refers to, each with its load balancers."""
    found = {}
    for rule in stock._rules.values():
        listener = stock._listeners.get(rule.get("ListenerArn"))
        if not listener:
            continue
        actions = rule.get("Actions") or []
        if rule.get("IsDefault"):
            actions = actions + (listener.get("DefaultActions") or [])
        for action in actions:
            for group_arn in groups_of(action):
                found.setdefault(group_arn, set()).add(listener["LoadBalancerArn"])
    return found


def groups_of(action):
    """The target groups of a forward action."""
    config = action.get("ForwardConfig")
    if config:
        return [entry["TargetGroupArn"] for entry in config["TargetGroups"]]
    return [action["TargetGroupArn"]] if action.get("TargetGroupArn") else []


async def watch():
    """Probes every registered target for ever, ends draining ones and forgets those of deleted groups."""
    while True:
        await asyncio.sleep(TICK)
        try:
            _tick()
        except Exception as error:
            print("lab: target health:", repr(error), flush=True)


def _tick():
    referenced_by_scope = {}
    for (account, region, group_arn), group in list(stock._tgs.all_items()):
        with scope_of(group_arn):
            if (account, region) not in referenced_by_scope:
                referenced_by_scope[account, region] = referenced_groups()
            for target in registered(group_arn):
                _probe_if_due(target, group, group_arn in referenced_by_scope[account, region])
    _forget_gone()


def _forget_gone():
    now = time.monotonic()
    with _lock:
        for key, target in list(_states.items()):
            with scope_of(target.group_arn):
                group_is_gone = target.group_arn not in stock._tgs
            if group_is_gone or (target.draining_until is not None and target.draining_until <= now):
                del _states[key]
                # What is still in flight is cut, as the load balancer does when the delay is over.
                for connection in list(target.connections):
                    connection.close()


def _probe_if_due(target, group, is_referenced):
    if not is_referenced:
        target.set_state("unused", "Target.NotInUse", "Target group is not configured to receive traffic")
        return
    if target.state == "unused":
        target.start_again()
    interval = float(group.get("HealthCheckIntervalSeconds", 30))
    wait = min(interval, INITIAL_INTERVAL) if target.state == "initial" else interval
    if target.probing or time.monotonic() - target.probed_at < wait:
        return
    target.probing = True
    target.probed_at = time.monotonic()
    asyncio.get_running_loop().create_task(_probe(target, group, interval))


async def _probe(target, group, interval):
    try:
        problem = await _problem_of(target, group)
        with _lock:
            if target.draining_until is not None or target.state == "unused":
                return
            if problem is None:
                target.succeeded(int(group.get("HealthyThresholdCount", 5)))
            else:
                target.failed(*problem, int(group.get("UnhealthyThresholdCount", 2)), interval)
    finally:
        target.probing = False


async def _problem_of(target, group):
    """What is wrong with a target, as (reason, description), or None."""
    timeout = float(group.get("HealthCheckTimeoutSeconds", 5))
    try:
        if group.get("HealthCheckProtocol") == "TCP":
            await asyncio.wait_for(_connect(target, group), timeout)
            return None
        code = await asyncio.wait_for(_request(target, group), timeout)
    except (TimeoutError, asyncio.TimeoutError):
        return "Target.Timeout", "Request timed out"
    except (OSError, ValueError, IndexError):
        return "Target.FailedHealthChecks", "Health checks failed"
    if _matches(code, group.get("Matcher", {}).get("HttpCode", "200")):
        return None
    return "Target.ResponseCodeMismatch", f"Health checks failed with these codes: [{code}]"


def _probed_port(target, group):
    port = group.get("HealthCheckPort", "traffic-port")
    return target.port if port == "traffic-port" else int(port)


async def _connect(target, group):
    _, writer = await asyncio.open_connection(target.id, _probed_port(target, group))
    writer.close()


async def _request(target, group):
    port = _probed_port(target, group)
    reader, writer = await asyncio.open_connection(target.id, port)
    try:
        head = (
            f"GET {group.get('HealthCheckPath') or '/'} HTTP/1.1\r\nHost: {target.id}:{port}\r\n"
            "User-Agent: ELB-HealthChecker/2.0\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode())
        await writer.drain()
        line = await reader.readline()
        return int(line.split()[1])
    finally:
        writer.close()


def _matches(code, matcher):
    for part in matcher.split(","):
        first, _, last = part.strip().partition("-")
        if int(first) <= code <= int(last or first):
            return True
    return False

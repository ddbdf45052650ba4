"""The data plane of the load balancers: a real TCP listener on 127.0.0.1 for every listener of every load balancer.

A listener with a port of 1024 or more that is free answers there, any other at a free port; `addresses()` tells where.
Those of Network Load Balancers pass each connection on to one target. Those of others speak
HTTP/1.1 with keep-alive towards the client, a connection of its own to the target for every request, bodies passed on
as they come. A request is sent once: only when a connection to a target cannot even be made is another one tried.
"""
import asyncio
import contextlib
import random
import threading
from email.utils import formatdate
from urllib.parse import parse_qs

from ministack.services import alb as stock

import targets
from scope import scope_of, seconds

CONNECT_TIMEOUT = seconds("LAB_CONNECT_TIMEOUT", 5)
LIMIT = 64 * 1024
FORWARDED = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-port")

_loop = asyncio.new_event_loop()
_open = {}


class BadRequest(Exception):
    """The client did not send what can be passed on."""


class TargetFailed(Exception):
    """The target gave no answer; `status` is what the client gets."""

    def __init__(self, status):
        super().__init__(status)
        self.status = status


class Listener:
    """One listener that accepts connections."""

    def __init__(self, arn, wanted_port):
        self.arn = arn
        self.wanted_port = wanted_port
        self.server = None
        self.clients = set()

    async def start(self):
        try:
            if self.wanted_port < 1024:
                raise OSError("a privileged port")
            self.server = await self._listen(self.wanted_port)
        except OSError as error:
            self.server = await self._listen(0)
            print(f"lab: {self.arn} answers at {self.address()}, for its port: {error}", flush=True)

    async def _listen(self, port):
        return await asyncio.start_server(self._serve, "127.0.0.1", port, limit=LIMIT, backlog=1024)

    def address(self):
        host, port = self.server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    def stop(self):
        self.server.close()
        for client in list(self.clients):
            client.close()

    async def _serve(self, reader, writer):
        self.clients.add(writer)
        try:
            with scope_of(self.arn):
                listener = stock._listeners.get(self.arn) or {}
                if listener.get("Protocol") == "TCP":
                    await _pass_on(listener, reader, writer)
                    return
                while await Exchange(self.arn, reader, writer).run():
                    pass
        except (OSError, EOFError, asyncio.LimitOverrunError, TargetFailed):
            pass
        except Exception as error:
            print("lab: proxy:", repr(error), flush=True)
        finally:
            self.clients.discard(writer)
            writer.close()


class Message:
    """The head of a request or a response."""

    def __init__(self, head):
        lines = head.decode("latin-1").splitlines()
        self.first = lines[0].split(" ", 2)
        if len(self.first) < 2:
            raise BadRequest
        self.headers = []
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if colon:
                self.headers.append((name.strip(), value.strip()))

    def get(self, name, default=None):
        for key, value in self.headers:
            if key.lower() == name:
                return value
        return default

    def without(self, *names):
        return [(name, value) for name, value in self.headers if name.lower() not in names]

    def is_chunked(self):
        return (self.get("transfer-encoding") or "").lower().endswith("chunked")

    def length(self):
        value = self.get("content-length")
        return int(value) if value is not None else None


class Exchange:
    """One request of a client and the answer to it."""

    def __init__(self, listener_arn, reader, writer):
        self.listener_arn = listener_arn
        self.reader = reader
        self.writer = writer
        self.method = ""
        self.keep_alive = True
        self.answered = False

    async def run(self):
        """Serves one request; tells whether the client's connection can be used again."""
        head = await _read_head(self.reader)
        try:
            self.request = Message(head)
            self.method, self.target = self.request.first[:2]
            version = self.request.first[2] if len(self.request.first) > 2 else "HTTP/1.0"
            connection = (self.request.get("connection") or "").lower()
            self.keep_alive = version == "HTTP/1.1" and connection != "close"
            self.speaks_chunked = version == "HTTP/1.1"
            self.request.length()
        except (BadRequest, ValueError):
            self.keep_alive = False
            await self.answer(400, [], b"")
            return False
        try:
            await self._route()
        except TargetFailed as failure:
            self.keep_alive = False
            if self.answered:
                return False
            await self.answer(failure.status, [("Content-Type", "text/html")], b"")
        return self.keep_alive

    async def answer(self, status, headers, body):
        """Answers with what the load balancer itself has to say."""
        sent = [("Server", "awselb/2.0"), ("Date", formatdate(usegmt=True)), ("Content-Length", str(len(body)))]
        if not self.keep_alive:
            sent.append(("Connection", "close"))
        self.answered = True
        self.writer.write(_head(f"HTTP/1.1 {status} {_phrase(status)}", headers + sent))
        if self.method != "HEAD":
            self.writer.write(body)
        await self.writer.drain()

    async def _route(self):
        listener = stock._listeners.get(self.listener_arn)
        if listener is None:
            raise TargetFailed(503)
        path, _, query = self.target.partition("?")
        names = {name.lower(): value for name, value in self.request.headers}
        action = _action_for(listener, self.method, path, names, parse_qs(query, keep_blank_values=True))
        if action is None:
            raise TargetFailed(502)
        if action["Type"] == "forward":
            group_arn = choose_group(action)
            if group_arn is None:
                raise TargetFailed(503)
            await self._forward(listener, group_arn)
            return
        names["x-forwarded-port"] = str(listener["Port"])
        status, headers, body = await stock._execute_action(action, self.method, path, names, b"", {}, query)
        if self.request.length() or self.request.is_chunked():
            self.keep_alive = False
        await self.answer(status, list(headers.items()), body)

    async def _forward(self, listener, group_arn):
        target, reader, writer = await _connect(group_arn)
        target.connections.add(writer)
        sending = asyncio.ensure_future(self._send(listener, writer))
        try:
            timeout = float(stock._lb_attr(listener["LoadBalancerArn"], "idle_timeout.timeout_seconds", "60"))
            await self._receive(reader, writer, sending, timeout)
            if not sending.done():
                # The target answered before it had all of the request: what the client still sends cannot be told
                # from its next request.
                self.keep_alive = False
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await sending
            target.connections.discard(writer)
            writer.close()

    def _host(self, listener):
        host = self.request.get("host") or ""
        if stock._lb_attr(listener["LoadBalancerArn"], "routing.http.preserve_host_header.enabled", "false") == "true":
            return host
        return stock._target_host_header(host, listener["Port"])

    async def _send(self, listener, writer):
        request = self.request
        headers = request.without("connection", "keep-alive", "expect", "host", *FORWARDED)
        headers.insert(0, ("Host", self._host(listener)))
        client = self.writer.get_extra_info("peername")[0]
        before = request.get("x-forwarded-for")
        headers.append(("X-Forwarded-For", f"{before}, {client}" if before else client))
        headers.append(("X-Forwarded-Proto", (listener.get("Protocol") or "HTTP").lower()))
        headers.append(("X-Forwarded-Port", str(listener["Port"])))
        if request.get("x-amzn-trace-id") is None:
            headers.append(("X-Amzn-Trace-Id", f"Root={stock._trace_id()}"))
        headers.append(("Connection", "upgrade" if request.get("upgrade") else "close"))
        writer.write(_head(f"{self.method} {self.target} HTTP/1.1", headers))
        if (request.get("expect") or "").lower() == "100-continue":
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if request.is_chunked():
            await _relay_chunked(self.reader, writer)
        elif request.length():
            await _relay(self.reader, writer, request.length())
        await writer.drain()

    async def _receive(self, reader, writer, sending, timeout):
        response = await self._response_head(reader, timeout)
        status = int(response.first[1])
        if status == 101:
            await self._pump_both(response, reader, writer)
            return
        headers = response.without("connection", "keep-alive")
        has_body = self.method != "HEAD" and status not in (204, 304)
        length = response.length()
        is_rechunked = has_body and length is None and not response.is_chunked()
        if is_rechunked and self.speaks_chunked:
            headers.append(("Transfer-Encoding", "chunked"))
        elif is_rechunked or not sending.done():
            self.keep_alive = False
        if not self.keep_alive:
            headers.append(("Connection", "close"))
        self.answered = True
        self.writer.write(_head(f"HTTP/1.1 {status} {_phrase(status)}", headers))
        try:
            if not has_body:
                pass
            elif length is not None:
                await _relay(reader, self.writer, length, timeout)
            elif response.is_chunked():
                await _relay_chunked(reader, self.writer, timeout)
            else:
                await _relay_to_end(reader, self.writer, self.speaks_chunked, timeout)
        except (EOFError, asyncio.TimeoutError) as error:
            raise TargetFailed(502) from error
        await self.writer.drain()

    async def _response_head(self, reader, timeout):
        while True:
            try:
                head = await asyncio.wait_for(_read_head(reader), timeout)
                response = Message(head)
            except asyncio.TimeoutError as error:
                raise TargetFailed(504) from error
            except (OSError, EOFError, asyncio.LimitOverrunError, BadRequest) as error:
                raise TargetFailed(502) from error
            if not response.first[1].startswith("1") or response.first[1] == "101":
                return response

    async def _pump_both(self, response, reader, writer):
        self.keep_alive = False
        self.answered = True
        self.writer.write(_head(f"HTTP/1.1 101 {_phrase(101)}", response.headers))
        both = [asyncio.ensure_future(_pump(self.reader, writer)), asyncio.ensure_future(_pump(reader, self.writer))]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for one in both:
            one.cancel()


async def _pass_on(listener, reader, writer):
    """Connects a client with a target until both have said all they have to say."""
    group_arn = choose_group(listener["DefaultActions"][-1])
    if group_arn is None:
        return
    target, target_reader, target_writer = await _connect(group_arn)
    target.connections.add(target_writer)

    async def pump(source, sink):
        await _pump(source, sink)
        sink.write_eof()

    try:
        await asyncio.gather(pump(reader, target_writer), pump(target_reader, writer))
    finally:
        target.connections.discard(target_writer)
        target_writer.close()


def choose_group(action):
    """The target group that gets a request, by the weights of a forward action."""
    config = action.get("ForwardConfig")
    if not config:
        return action.get("TargetGroupArn")
    weighted = [entry for entry in config["TargetGroups"] if entry["Weight"] > 0]
    if not weighted:
        return None
    weights = [entry["Weight"] for entry in weighted]
    return random.choices(weighted, weights)[0]["TargetGroupArn"]


def _action_for(listener, method, path, headers, query):
    rules = [rule for rule in stock._rules.values() if rule.get("ListenerArn") == listener["ListenerArn"]]
    for rule in sorted(rules, key=stock._rule_sort_key):
        conditions = rule.get("Conditions", [])
        if rule.get("IsDefault") or all(
            stock._match_condition(condition, method, path, headers, query) for condition in conditions
        ):
            actions = rule.get("Actions") or listener.get("DefaultActions", [])
            return actions[-1] if actions else None
    return None


async def _connect(group_arn):
    refused = False
    for target in targets.choose(group_arn):
        try:
            opening = asyncio.open_connection(target.id, target.port, limit=LIMIT)
            reader, writer = await asyncio.wait_for(opening, CONNECT_TIMEOUT)
            return target, reader, writer
        except (OSError, asyncio.TimeoutError):
            refused = True
    raise TargetFailed(502 if refused else 503)


def _phrase(status):
    from http import HTTPStatus

    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Status"


def _head(first, headers):
    lines = [first, *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


async def _read_head(reader):
    """Everything up to the empty line; some servers end their lines with a line feed alone."""
    head = b""
    while True:
        line = await reader.readuntil(b"\n")
        if not line.strip(b"\r\n"):
            if head:
                return head
            continue
        head += line
        if len(head) > LIMIT:
            raise asyncio.LimitOverrunError("the head is too long", len(head))


async def _relay(reader, writer, length, timeout=None):
    while length > 0:
        data = await asyncio.wait_for(reader.read(min(length, LIMIT)), timeout)
        if not data:
            raise EOFError
        length -= len(data)
        writer.write(data)
        await writer.drain()


async def _relay_chunked(reader, writer, timeout=None):
    while True:
        line = await asyncio.wait_for(reader.readuntil(b"\r\n"), timeout)
        writer.write(line)
        size = int(line.split(b";")[0], 16)
        if size == 0:
            break
        await _relay(reader, writer, size + 2, timeout)
    while line != b"\r\n":
        line = await asyncio.wait_for(reader.readuntil(b"\r\n"), timeout)
        writer.write(line)


async def _relay_to_end(reader, writer, chunked, timeout):
    while data := await asyncio.wait_for(reader.read(LIMIT), timeout):
        writer.write(b"%x\r\n%s\r\n" % (len(data), data) if chunked else data)
        await writer.drain()
    if chunked:
        writer.write(b"0\r\n\r\n")


async def _pump(reader, writer):
    while data := await reader.read(LIMIT):
        writer.write(data)
        await writer.drain()


def addresses():
    """Where each listener answers: its ARN to `127.0.0.1:port`."""
    return {arn: listener.address() for arn, listener in list(_open.items())}


async def _sync():
    wanted = {arn: listener["Port"] for (_, _, arn), listener in list(stock._listeners.all_items())}
    for arn, listener in list(_open.items()):
        if wanted.get(arn) != listener.wanted_port:
            _open.pop(arn).stop()
    for arn, port in wanted.items():
        if arn not in _open:
            listener = Listener(arn, port)
            _open[arn] = listener
            await listener.start()


_syncing = asyncio.Lock()


async def _sync_once():
    async with _syncing:
        await _sync()


def sync():
    """Opens and closes ports so that they are those of the listeners."""
    asyncio.run_coroutine_threadsafe(_sync_once(), _loop).result(10)


async def _watch():
    while True:
        await asyncio.sleep(0.5)
        try:
            await _sync_once()
        except Exception as error:
            print("lab: listeners:", repr(error), flush=True)


def start():
    """Starts the thread that serves all listeners and probes all targets."""

    def serve():
        asyncio.set_event_loop(_loop)
        _loop.create_task(_watch())
        _loop.create_task(targets.watch())
        _loop.run_forever()

    threading.Thread(target=serve, daemon=True, name="lab-load-balancers").start()

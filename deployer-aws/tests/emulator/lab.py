#!/usr/bin/env python3
"""The AWS emulator that the tests of deployer-aws talk to: ministack 1.5.33 (MIT), with what it gets wrong mended.

Started by `scripts/aws-emulator`; it runs ECS tasks as containers of this machine's Docker Engine. What is mended:

load balancers (load_balancers.py, targets.py, proxy.py)
- weights of forward actions are kept, checked and followed; ministack drops them
- targets are probed for real (initial, healthy, unhealthy, unused), drain when deregistered, and only healthy ones get
  requests; ministack calls every target healthy and forgets it at once
- every listener is a TCP port of 127.0.0.1 of its own; ministack answers only at its own port, by the Host header
- host-header conditions ignore case, and `[` is no wildcard in conditions
- priorities that are taken, target groups in use, duplicates and numbers out of range are refused; listings have pages
step functions (step_functions.py)
- the integration `aws-sdk:elasticloadbalancingv2` works
ECS (ecs.py)
- a deployment is IN_PROGRESS until its tasks are healthy at their target groups and by their own health checks
"""
import json
import os

import ministack.app

import ecs
import load_balancers
import log_events
import proxy
import registry
import step_functions

_stock_app = ministack.app.app


# `scripts/aws-emulator` restarts the lab when its version is not that of the files any more.
_STATUS = {"version": os.environ.get("LAB_VERSION", ""), "pid": os.getpid()}


async def _app(scope, receive, send):
    if scope["type"] == "http" and scope["path"] == "/_lab":
        body = json.dumps({**_STATUS, "listeners": proxy.addresses()}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        return
    await _stock_app(scope, receive, send)


def main():
    for part in (load_balancers, log_events, registry, step_functions, ecs):
        part.install()
    proxy.start()
    ministack.app.app = _app
    ministack.app.main()


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""The AWS emulator that the tests of deployer-aws talk to: ministack 1.5.33 (MIT), with what it gets wrong mended.

`scripts/aws-emulator` starts it; ECS tasks are containers of this machine's Docker Engine. What is mended:

load balancers: load_balancers.py (the API), targets.py (health), proxy.py (traffic)
- weights of forward actions are kept, checked and followed; ministack drops them
- targets are probed for real and are initial, healthy, unhealthy, unused or draining; ministack calls all healthy
- a target that is deregistered gets no new request and finishes those it has, for the delay of its group
- every listener is a TCP port of 127.0.0.1; ministack answers at its own port only, by the Host header
- host-header conditions ignore case, and `*` and `?` are the only wildcards
- priorities that are taken, groups in use, duplicates and numbers out of range are refused, as are unknown names
- listings have pages and an order; texts are escaped
- a load balancer is in the VPC and in the zones of its subnets; quotas are told
ECS: services.py, scheduler.py, tasks.py, runner.py, containers.py, task_definitions.py (ecs.py puts them together)
- no API call waits for Docker, and tasks stop by and by: target groups, drain, stop signal, stopTimeout, SIGKILL
- a deployment is IN_PROGRESS until its tasks are healthy and those of older ones have stopped, which go one by one as
  minimumHealthyPercent and maximumPercent allow
- the circuit breaker works from the first deployment on, and tasks that crash are replaced slower and slower
- entry points, users, limits of memory, health checks and stopTimeout of containers are obeyed
- exit codes, reasons, stop codes, addresses, digests and tags of tasks are told
- client tokens are honoured; unknown clusters, task definitions, containers, ports and target groups are refused
- listings have pages and filters; more than 10 services or 100 tasks at once are refused
- secrets of the Parameter Store are decrypted; a log group that does not exist stops a task from starting
- `<account>.dkr.ecr.<region>.amazonaws.com/...` is pulled from the emulator's own registry
ECR: registry.py
- images that are unknown, that have several tags, or that are pushed again; sizes; pages
Cloud Control: cloud_control.py
- roles, subnets and security groups are told as IAM and EC2 have them
CloudWatch Logs: log_events.py
- FilterLogEvents has pages; ministack drops all after the first
Cloud Map: names.py
- names are taken once, and not given up while they have instances; listings have filters and pages
- tasks of ECS are registered, and find each other by DNS
Step Functions: step_functions.py
- the integration `aws-sdk:elasticloadbalancingv2` works

Not emulated: networks of their own and security groups, TLS, NLB, stickiness, deployment strategies other than ROLLING,
service deployments and revisions, task sets, capacity, hard limits of CPU.

`GET /_lab` tells where each listener answers: one whose port is below 1024 or taken is given another one. Environment:
LAB_HEALTH_INTERVAL  seconds between the first probes of a new target or container, until one succeeds (1)
LAB_STEADY_SECONDS   how long a task that nothing checks has to run to count as healthy (1; 40 on AWS)
LAB_BACKOFF_SECONDS  how long the replacement of a task that crashed waits at first (1)
LAB_CONNECT_TIMEOUT  seconds for a connection to a target (5)
LAB_LOCAL_REGISTRY   if set, URIs of repositories begin with `127.0.0.1:<port>/`, which Docker can push to
"""
import json
import os
import sys

import ministack.app

import cloud_control
import ecs
import load_balancers
import log_events
import names
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
    # Many threads have little to do each: a short turn keeps answers quick while the load balancers are busy.
    sys.setswitchinterval(0.0005)
    for part in (load_balancers, cloud_control, log_events, registry, names, step_functions, ecs):
        part.install()
    proxy.start()
    ministack.app.app = _app
    ministack.app.main()


if __name__ == "__main__":
    main()

"""Puts the lab's ECS in the place of ministack's: task definitions, tasks and services."""
import re

from ministack.core import container_reaper
from ministack.services import ecs as stock

import scheduler
import services
import task_definitions
import tasks
from ecs_records import lock

_stock_reset = stock.reset


def _reset():
    services.forget_tokens()
    with lock:
        stock._services.clear()
    tasks.abandon_all()
    _stock_reset()


def _private_name(operation):
    """The name of ministack's own function for an operation, which Step Functions and CloudFormation call."""
    return "_" + re.sub(r"(?<!^)([A-Z])", r"_\1", operation).lower()


def install():
    """Puts the mended parts in the place of ministack's, and starts the scheduler."""
    for part in (task_definitions, tasks, services):
        for operation, function in part.OPERATIONS.items():
            stock._ACTION_MAP[operation] = function
            setattr(stock, _private_name(operation), function)
    stock.reset = _reset
    container_reaper.register_live_ids("ecs", tasks.live_container_ids)
    scheduler.start()

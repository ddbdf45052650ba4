"""Account and region of what background threads work on: ministack keeps its records apart by both."""
import os
from contextlib import contextmanager

from ministack.core.responses import request_scope


def seconds(name, default):
    """The number of seconds that the environment variable `name` sets."""
    return float(os.environ.get(name) or default)


@contextmanager
def scope_of(arn):
    """Acts for the account and in the region that `arn` names."""
    parts = arn.split(":")
    with request_scope(parts[4], parts[3]):
        yield

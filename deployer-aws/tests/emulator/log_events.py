"""Mend of ministack's CloudWatch Logs: FilterLogEvents has pages, where ministack drops all after the first."""
import json

from ministack.core.responses import error_response_json, json_response
from ministack.services import cloudwatch_logs as stock

_stock_filter = stock._filter_log_events
MOST = 10000


def _filter(data):
    """The token says where the page before ended: a timestamp, and how many events of that time it had already."""
    start, skipped = data.get("startTime"), 0
    if data.get("nextToken"):
        try:
            start, skipped = (int(part) for part in data["nextToken"].split("-"))
        except ValueError:
            return error_response_json("InvalidParameterException", "The specified nextToken is invalid.", 400)
    limit = min(int(data.get("limit") or MOST), MOST - skipped - 1)
    asked = {**data, "limit": skipped + limit + 1}
    asked.pop("nextToken", None)
    if start is not None:
        asked["startTime"] = start
    status, headers, body = _stock_filter(asked)
    if status != 200:
        return status, headers, body
    answer = json.loads(body)
    events = answer["events"][skipped:]
    if len(events) > limit:
        events = events[:limit]
        last = events[-1]["timestamp"]
        before = skipped if last == start else 0
        same = sum(event["timestamp"] == last for event in events)
        answer["nextToken"] = f"{last}-{before + same}"
    answer["events"] = events
    return json_response(answer)


def install():
    """Puts the mended part in the place of ministack's."""
    stock._filter_log_events = _filter

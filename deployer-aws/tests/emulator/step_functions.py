"""Teaches ministack's Step Functions the integration `aws-sdk:elasticloadbalancingv2`, by botocore's own serialiser."""
from urllib.parse import urlencode

import botocore.parsers
import botocore.serialize
import botocore.session
from ministack.services import stepfunctions as stock

SERVICE = "elasticloadbalancingv2"

_stock_dispatch = stock._dispatch_aws_sdk_query


class _Translator:
    """Made on first use, because the service model is big."""

    made = None

    def __init__(self):
        self.model = botocore.session.get_session().get_service_model("elbv2")
        self.serializer = botocore.serialize.create_serializer("query")
        self.parser = botocore.parsers.create_parser("query")

    @classmethod
    def get(cls):
        if cls.made is None:
            cls.made = cls()
        return cls.made


def _dispatch(info, name, action, data):
    if name != SERVICE:
        return _stock_dispatch(info, name, action, data)
    translator = _Translator.get()
    operation = translator.model.operation_model(action[0].upper() + action[1:])
    request = translator.serializer.serialize_to_request(data or {}, operation)
    status, headers, body = _call(urlencode(request["body"]).encode())
    raw = {
        "status_code": status,
        "headers": {name.lower(): value for name, value in (headers or {}).items()},
        "body": body if isinstance(body, bytes) else body.encode(),
    }
    answer = translator.parser.parse(raw, operation.output_shape)
    if status >= 400:
        error = answer.get("Error", {})
        code = error.get("Code", "ElasticLoadBalancingV2")
        if not code.endswith("Exception"):
            code += "Exception"
        raise stock._ExecutionError(f"ElasticLoadBalancingV2.{code}", error.get("Message", ""))
    answer.pop("ResponseMetadata", None)
    return answer


def _call(body):
    from ministack import app

    region = stock.get_region()
    headers = {
        "content-type": "application/x-www-form-urlencoded",
        "host": f"elasticloadbalancing.{region}.amazonaws.com",
        "authorization": (
            f"AWS4-HMAC-SHA256 Credential=test/20260101/{region}/elasticloadbalancing/aws4_request"
        ),
    }
    handler = app.SERVICE_HANDLERS["elasticloadbalancing"]
    return app.call_service_handler_sync(handler, "POST", "/", headers, body, {})


def install():
    """Puts the mended part in the place of ministack's."""
    stock._AWS_SDK_SERVICE_MAP[SERVICE] = {"protocol": "query", "service_key": "elasticloadbalancing"}
    stock._AWS_SDK_ERROR_PREFIX[SERVICE] = "ElasticLoadBalancingV2"
    stock._dispatch_aws_sdk_query = _dispatch

"""Mends of ministack's Elastic Load Balancing v2 API (its data plane is in proxy.py, target health in targets.py)."""
import re
from html import escape

from ministack.services import alb as stock
from ministack.services import ec2

import proxy
import targets

value_of = stock._p
_stock_parse_actions = stock._parse_actions
_stock_action_xml = stock._action_xml
_stock_execute_actions = stock._execute_actions
_stock_match_condition = stock._match_condition
_stock_condition_xml = stock._condition_xml
_stock_target_group_xml = stock._tg_xml
_stock_reset = stock.reset
_stock = dict(stock._ACTION_MAP)


# ---- forward actions with weights -----------------------------------------------------------------------------------
def _parse_actions(params, prefix="DefaultActions"):
    actions = _stock_parse_actions(params, prefix)
    for number, action in enumerate(actions, 1):
        base = f"{prefix}.member.{number}.ForwardConfig"
        groups = _parse_groups(params, base)
        if not groups and action["Type"] == "forward" and action.get("TargetGroupArn"):
            groups = [{"TargetGroupArn": action["TargetGroupArn"], "Weight": 1}]
        if not groups:
            continue
        action["ForwardConfig"] = {
            "TargetGroups": groups,
            "Stickiness": value_of(params, f"{base}.TargetGroupStickinessConfig.Enabled") or "false",
            "Duration": value_of(params, f"{base}.TargetGroupStickinessConfig.DurationSeconds"),
        }
        action.pop("TargetGroupArn", None)
        if len(groups) == 1:
            action["TargetGroupArn"] = groups[0]["TargetGroupArn"]
    return actions


def _parse_groups(params, base):
    groups = []
    while arn := value_of(params, f"{base}.TargetGroups.member.{len(groups) + 1}.TargetGroupArn"):
        weight = value_of(params, f"{base}.TargetGroups.member.{len(groups) + 1}.Weight")
        groups.append({"TargetGroupArn": arn, "Weight": int(weight or 1)})
    return groups


def _action_xml(action):
    if "FixedResponseConfig" in action:
        action = {**action, "FixedResponseConfig": _escaped(action["FixedResponseConfig"])}
    xml = _stock_action_xml(action)
    config = action.get("ForwardConfig")
    if not config:
        return xml
    groups = "".join(
        f"<member><TargetGroupArn>{entry['TargetGroupArn']}</TargetGroupArn><Weight>{entry['Weight']}</Weight></member>"
        for entry in config["TargetGroups"]
    )
    duration = f"<DurationSeconds>{config['Duration']}</DurationSeconds>" if config["Duration"] else ""
    stickiness = f"<Enabled>{config['Stickiness']}</Enabled>{duration}"
    forward = (
        f"<ForwardConfig><TargetGroups>{groups}</TargetGroups>"
        f"<TargetGroupStickinessConfig>{stickiness}</TargetGroupStickinessConfig></ForwardConfig>"
    )
    return xml[: -len("</member>")] + forward + "</member>"


def _problem_with(actions):
    """The refusal of actions that the real service refuses."""
    for action in actions:
        config = action.get("ForwardConfig")
        if not config:
            continue
        if len(config["TargetGroups"]) > 5:
            message = "You have exceeded the maximum number of target groups that you can specify in an action: 5"
            return stock._error("TooManyTargetGroups", message)
        for entry in config["TargetGroups"]:
            if not 0 <= entry["Weight"] <= 999:
                message = f"The weight '{entry['Weight']}' must be between 0 and 999"
                return stock._error("ValidationError", message)
            if entry["TargetGroupArn"] not in stock._tgs:
                message = f"Target groups '{entry['TargetGroupArn']}' not found"
                return stock._error("TargetGroupNotFound", message)
    return None


def _mismatch(actions, is_network):
    """The refusal of target groups whose protocol is not one of the load balancer's."""
    for entry in (entry for action in actions for entry in (action.get("ForwardConfig") or {}).get("TargetGroups", [])):
        group = stock._tgs[entry["TargetGroupArn"]]
        if is_network != (group.get("Protocol") in ("TCP", "UDP", "TCP_UDP", "TLS")):
            message = f"The target group '{group['TargetGroupName']}' has a protocol that the listener cannot forward to"
            return stock._error("InvalidConfigurationRequest", message)
    return None


async def _execute_actions(actions, *args, **options):
    """For requests that come in by ministack's own port: the weights decide on the target group."""
    chosen = []
    for action in actions:
        if (action.get("Type") or "").lower() == "forward":
            group_arn = proxy.choose_group(action)
            if group_arn is None:
                return 503, {"Content-Type": "text/plain"}, b"no target group has a weight"
            action = {**action, "TargetGroupArn": group_arn}
        chosen.append(action)
    return await _stock_execute_actions(chosen, *args, **options)


async def _forward_to_group(group_arn, method, path, headers, body, query, raw_query=None, raw_path=None):
    able = targets.choose(group_arn)
    group = stock._tgs.get(group_arn)
    if group is None or not able:
        return 503, {"Content-Type": "text/plain"}, b"no target can get the request"
    target = {"Id": able[0].id, "Port": able[0].port}
    return await stock._proxy_http_target(target, group, method, raw_path or path, headers, body, query, raw_query)


# ---- rules and listeners --------------------------------------------------------------------------------------------
def _wildcards_match(text, pattern, flags=0):
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), text, flags) is not None


def _match_condition(condition, method, path, headers, query):
    values = condition.get("Values", [])
    if condition.get("Field") == "path-pattern":
        return any(_wildcards_match(path, pattern) for pattern in values)
    if condition.get("Field") == "host-header":
        host = re.sub(r":\d+$", "", headers.get("host", ""))
        return any(_wildcards_match(host, pattern, re.IGNORECASE) for pattern in values)
    return _stock_match_condition(condition, method, path, headers, query)


def _priority_taken(listener_arn, priority, except_for=()):
    return any(
        rule.get("ListenerArn") == listener_arn and str(rule.get("Priority")) == str(priority)
        for arn, rule in stock._rules.items()
        if arn not in except_for
    )


def _priority_problem(priority):
    if not priority.isdigit() or not 1 <= int(priority) <= 50000:
        return stock._error("ValidationError", f"Priority '{priority}' must be between 1 and 50000")
    return None


def _create_rule(params):
    priority = value_of(params, "Priority")
    refusal = _priority_problem(priority) or _problem_with(_parse_actions(params, "Actions"))
    if refusal:
        return refusal
    if _priority_taken(value_of(params, "ListenerArn"), priority):
        return stock._error("PriorityInUse", f"Priority '{priority}' is currently in use")
    return _stock["CreateRule"](params)


def _modify_rule(params):
    return _problem_with(_parse_actions(params, "Actions")) or _stock["ModifyRule"](params)


def _delete_rule(params):
    arn = value_of(params, "RuleArn")
    if arn not in stock._rules:
        return stock._error("RuleNotFound", f"One or more rules not found: '{arn}'")
    return _stock["DeleteRule"](params)


def _set_rule_priorities(params):
    wanted = {}
    while arn := value_of(params, f"RulePriorities.member.{len(wanted) + 1}.RuleArn"):
        wanted[arn] = value_of(params, f"RulePriorities.member.{len(wanted) + 1}.Priority")
    for arn, priority in wanted.items():
        if arn not in stock._rules:
            return stock._error("RuleNotFound", f"One or more rules not found: '{arn}'")
        refusal = _priority_problem(priority)
        if refusal:
            return refusal
        if _priority_taken(stock._rules[arn]["ListenerArn"], priority, except_for=wanted):
            return stock._error("PriorityInUse", f"Priority '{priority}' is currently in use")
    if len(set(wanted.values())) < len(wanted):
        return stock._error("PriorityInUse", "A priority is given to more than one rule")
    return _stock["SetRulePriorities"](params)


def _create_listener(params):
    load_balancer = value_of(params, "LoadBalancerArn")
    port = value_of(params, "Port")
    is_network = stock._lbs.get(load_balancer, {}).get("Type") == "network"
    if is_network != (value_of(params, "Protocol") in ("TCP", "UDP", "TCP_UDP", "TLS")):
        message = f"Listener protocol '{value_of(params, 'Protocol')}' is not supported by the load balancer"
        return stock._error("ValidationError", message)
    refusal = _problem_with(_parse_actions(params)) or _mismatch(_parse_actions(params), is_network)
    if refusal:
        return refusal
    for listener in stock._listeners.values():
        if listener["LoadBalancerArn"] == load_balancer and str(listener["Port"]) == port:
            if listener["DefaultActions"] == _parse_actions(params):
                listing = f"<Listeners>{stock._listener_xml(listener)}</Listeners>"
                return stock._xml(200, "CreateListener", listing)
            return stock._error("DuplicateListener", "A listener already exists on this port for this load balancer")
    answer = _stock["CreateListener"](params)
    proxy.sync()
    return answer


def _modify_listener(params):
    answer = _problem_with(_parse_actions(params)) or _stock["ModifyListener"](params)
    proxy.sync()
    return answer


def _delete_listener(params):
    answer = _stock["DeleteListener"](params)
    proxy.sync()
    return answer


def _delete_load_balancer(params):
    load_balancer = value_of(params, "LoadBalancerArn")
    for arn, listener in list(stock._listeners.items()):
        if listener["LoadBalancerArn"] == load_balancer:
            _stock["DeleteListener"]({"ListenerArn": [arn]})
    answer = _stock["DeleteLoadBalancer"](params)
    proxy.sync()
    return answer


# ---- target groups --------------------------------------------------------------------------------------------------
# The settings that tell one target group from another of the same name, with the defaults of CreateTargetGroup.
_SETTINGS = {
    "Protocol": "HTTP", "Port": "80", "VpcId": "", "HealthCheckProtocol": "HTTP", "HealthCheckPort": "traffic-port",
    "HealthCheckPath": "/", "HealthCheckIntervalSeconds": "30", "HealthCheckTimeoutSeconds": "5",
    "HealthyThresholdCount": "5", "UnhealthyThresholdCount": "2", "TargetType": "instance",
}


def _health_check_problem(params):
    interval = int(value_of(params, "HealthCheckIntervalSeconds") or 30)
    timeout = int(value_of(params, "HealthCheckTimeoutSeconds") or min(5, interval - 1))
    if not 5 <= interval <= 300:
        return stock._error("ValidationError", f"Health check interval '{interval}' must be between 5 and 300 seconds")
    if not 2 <= timeout <= 120:
        return stock._error("ValidationError", f"Health check timeout '{timeout}' must be between 2 and 120 seconds")
    if timeout >= interval:
        return stock._error("ValidationError", "Health check interval must be greater than the timeout.")
    for name in ("HealthyThresholdCount", "UnhealthyThresholdCount"):
        if not 2 <= int(value_of(params, name) or 2) <= 10:
            return stock._error("ValidationError", f"{name} must be between 2 and 10")
    return None


def _create_target_group(params):
    name = value_of(params, "Name")
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?", name or ""):
        message = (
            f"Target group name '{name}' must be 1 to 32 letters, digits and hyphens, and must not begin or end with "
            "a hyphen"
        )
        return stock._error("ValidationError", message)
    refusal = _health_check_problem(params)
    if refusal:
        return refusal
    protocol = value_of(params, "Protocol")
    if not value_of(params, "HealthCheckProtocol"):
        params = {**params, "HealthCheckProtocol": ["TCP" if protocol in ("TCP", "TLS", "UDP") else "HTTP"]}
    for group in stock._tgs.values():
        if group["TargetGroupName"] != name:
            continue
        same = all(
            str(group.get(setting, default)) == (value_of(params, setting) or default)
            for setting, default in _SETTINGS.items()
        )
        if same and group["Matcher"]["HttpCode"] == (value_of(params, "Matcher.HttpCode") or "200"):
            return stock._xml(200, "CreateTargetGroup", f"<TargetGroups>{_target_group_xml(group)}</TargetGroups>")
        message = f"A target group with the same name '{name}' exists, but with different settings"
        return stock._error("DuplicateTargetGroupName", message)
    return _stock["CreateTargetGroup"](params)


def _target_group_xml(group):
    group["LoadBalancerArns"] = sorted(targets.referenced_groups().get(group["TargetGroupArn"], ()))
    return _stock_target_group_xml(_escaped(group))


def _modify_target_group(params):
    group = stock._tgs.get(value_of(params, "TargetGroupArn"))
    if group:
        names = ("HealthCheckIntervalSeconds", "HealthCheckTimeoutSeconds")
        merged = {**{name: [str(group[name])] for name in names}, **params}
        refusal = _health_check_problem(merged)
        if refusal:
            return refusal
    return _stock["ModifyTargetGroup"](params)


def _delete_target_group(params):
    arn = value_of(params, "TargetGroupArn")
    if arn in targets.referenced_groups():
        message = f"Target group '{arn}' is currently in use by a listener or a rule"
        return stock._error("ResourceInUse", message)
    return _stock["DeleteTargetGroup"](params)


def _register_targets(params):
    arn = value_of(params, "TargetGroupArn")
    if arn not in stock._tgs:
        return stock._error("TargetGroupNotFound", f"Target groups '{arn}' not found")
    for entry in stock._parse_targets_param(params):
        targets.register(arn, entry["Id"], entry.get("Port"))
    return stock._empty("RegisterTargets")


def _deregister_targets(params):
    arn = value_of(params, "TargetGroupArn")
    if arn not in stock._tgs:
        return stock._error("TargetGroupNotFound", f"Target groups '{arn}' not found")
    for entry in stock._parse_targets_param(params):
        targets.deregister(arn, entry["Id"], entry.get("Port"))
    return stock._empty("DeregisterTargets")


def _describe_target_health(params):
    arn = value_of(params, "TargetGroupArn")
    if arn not in stock._tgs:
        return stock._error("TargetGroupNotFound", f"Target groups '{arn}' not found")
    asked = [(entry["Id"], entry.get("Port")) for entry in stock._parse_targets_param(params)]
    found = targets.all_of(arn)
    if asked:
        found = [target for target in found if (target.id, target.port) in asked or (target.id, None) in asked]
    members = "".join(_target_health_xml(target) for target in found)
    known = {target.id for target in found}
    for id, port in asked:
        if id not in known:
            members += _health_member(id, port or 80, "unused", "Target.NotRegistered", "Target is not registered")
    body = f"<TargetHealthDescriptions>{members}</TargetHealthDescriptions>"
    return stock._xml(200, "DescribeTargetHealth", body)


def _target_health_xml(target):
    return _health_member(target.id, target.port, target.state, target.reason, target.description)


def _health_member(id, port, state, reason, description):
    why = f"<Reason>{reason}</Reason><Description>{escape(description)}</Description>" if reason else ""
    return (
        f"<member><Target><Id>{id}</Id><Port>{port}</Port></Target><HealthCheckPort>{port}</HealthCheckPort>"
        f"<TargetHealth><State>{state}</State>{why}</TargetHealth></member>"
    )


def _modify_target_group_attributes(params):
    number = 1
    while key := value_of(params, f"Attributes.member.{number}.Key"):
        value = value_of(params, f"Attributes.member.{number}.Value")
        if key == "deregistration_delay.timeout_seconds" and not (value.isdigit() and int(value) <= 3600):
            return stock._error("ValidationError", f"'{key}' must be between 0 and 3600")
        number += 1
    return _stock["ModifyTargetGroupAttributes"](params)


# ---- paging and look-ups --------------------------------------------------------------------------------------------
def _paged(action, element, records, to_xml, params):
    """One page of a listing, with the marker of the next one."""
    try:
        size = int(value_of(params, "PageSize") or 400)
        start = int(value_of(params, "Marker") or 0)
    except ValueError:
        return stock._error("ValidationError", "Invalid marker or page size")
    page = records[start : start + size]
    body = f"<{element}>{''.join(to_xml(record) for record in page)}</{element}>"
    if start + size < len(records):
        body += f"<NextMarker>{start + size}</NextMarker>"
    return stock._xml(200, action, body)


def _select(records, key, wanted):
    """The records that were asked for by `key`, in order, and the first that is missing."""
    by_key = {record[key]: record for record in records}
    missing = next((name for name in wanted if name not in by_key), None)
    return [by_key[name] for name in wanted if name in by_key], missing


def _describe_target_groups(params):
    records = list(stock._tgs.values())
    for parameter, key in (("TargetGroupArns", "TargetGroupArn"), ("Names", "TargetGroupName")):
        wanted = stock._parse_member_list(params, parameter)
        if wanted:
            records, missing = _select(records, key, wanted)
            if missing:
                return stock._error("TargetGroupNotFound", "One or more target groups not found")
    load_balancer = value_of(params, "LoadBalancerArn")
    if load_balancer:
        referenced = targets.referenced_groups()
        records = [group for group in records if load_balancer in referenced.get(group["TargetGroupArn"], ())]
    return _paged("DescribeTargetGroups", "TargetGroups", records, _target_group_xml, params)


def _load_balancer_xml(record):
    subnets = [ec2._subnets[name] for name in record.get("Subnets", []) if name in ec2._subnets]
    shown = stock._lb_xml({**record, "VpcId": subnets[0]["VpcId"]} if subnets else record)
    # ministack has all of them in the first zone.
    for subnet in subnets:
        told = f"<SubnetId>{subnet['SubnetId']}</SubnetId>"
        shown = re.sub(f"<ZoneName>[^<]*</ZoneName>{told}",
                       f"<ZoneName>{subnet['AvailabilityZone']}</ZoneName>{told}", shown)
    return shown


def _describe_load_balancers(params):
    records = list(stock._lbs.values())
    for parameter, key in (("LoadBalancerArns", "LoadBalancerArn"), ("Names", "LoadBalancerName")):
        wanted = stock._parse_member_list(params, parameter)
        if wanted:
            records, missing = _select(records, key, wanted)
            if missing:
                return stock._error("LoadBalancerNotFound", f"Load balancers '[{missing}]' not found")
    return _paged("DescribeLoadBalancers", "LoadBalancers", records, _load_balancer_xml, params)


def _describe_listeners(params):
    records = list(stock._listeners.values())
    wanted = stock._parse_member_list(params, "ListenerArns")
    load_balancer = value_of(params, "LoadBalancerArn")
    if wanted:
        records, missing = _select(records, "ListenerArn", wanted)
        if missing:
            return stock._error("ListenerNotFound", "One or more listeners not found")
    if load_balancer:
        if load_balancer not in stock._lbs:
            return stock._error("LoadBalancerNotFound", f"Load balancer '{load_balancer}' not found")
        records = [listener for listener in records if listener["LoadBalancerArn"] == load_balancer]
    return _paged("DescribeListeners", "Listeners", records, stock._listener_xml, params)


def _describe_rules(params):
    records = list(stock._rules.values())
    wanted = stock._parse_member_list(params, "RuleArns")
    listener = value_of(params, "ListenerArn")
    if wanted:
        records, missing = _select(records, "RuleArn", wanted)
        if missing:
            return stock._error("RuleNotFound", f"One or more rules not found: '{missing}'")
    elif listener:
        if listener not in stock._listeners:
            return stock._error("ListenerNotFound", f"Listener '{listener}' not found")
        records = [rule for rule in records if rule["ListenerArn"] == listener]
        records.sort(key=stock._rule_sort_key)
    return _paged("DescribeRules", "Rules", records, stock._rule_xml, params)


def _escaped(value):
    """A record with every text in it escaped for XML, which ministack forgets."""
    if isinstance(value, str):
        return escape(value, quote=False)
    if isinstance(value, list):
        return [_escaped(each) for each in value]
    if isinstance(value, dict):
        return {key: _escaped(each) for key, each in value.items()}
    return value


def _condition_xml(condition):
    given = {key: _escaped(value) if key == "Values" else value for key, value in condition.items()}
    return _stock_condition_xml(given)


def _describe_tags(params):
    descriptions = ""
    for given in stock._parse_member_list(params, "ResourceArns"):
        arn, refusal = stock._resolve_taggable_elbv2_arn(given)
        if refusal:
            return refusal
        tags = "".join(
            f"<member><Key>{escape(tag['Key'])}</Key><Value>{escape(tag['Value'])}</Value></member>"
            for tag in stock._tags.get(arn, [])
        )
        descriptions += f"<member><ResourceArn>{arn}</ResourceArn><Tags>{tags}</Tags></member>"
    return stock._xml(200, "DescribeTags", f"<TagDescriptions>{descriptions}</TagDescriptions>")


# What AWS gives every account: https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html
_LIMITS = {
    "application-load-balancers": 50,
    "listeners-per-network-load-balancer": 50,
    "network-load-balancers": 50,
    "target-groups-per-network-load-balancer": 3000,
    "listeners-per-application-load-balancer": 50,
    "rules-per-application-load-balancer": 100,
    "target-groups": 3000,
    "target-groups-per-action-on-application-load-balancer": 5,
    "target-groups-per-application-load-balancer": 100,
    "targets-per-application-load-balancer": 1000,
}


def _describe_account_limits(_):
    limits = "".join(f"<member><Name>{name}</Name><Max>{most}</Max></member>" for name, most in _LIMITS.items())
    return stock._xml(200, "DescribeAccountLimits", f"<Limits>{limits}</Limits>")


def _reset():
    _stock_reset()
    proxy.sync()


def install():
    """Puts the mended parts in the place of ministack's."""
    stock._parse_actions = _parse_actions
    stock._action_xml = _action_xml
    stock._condition_xml = _condition_xml
    stock._execute_actions = _execute_actions
    stock._forward_to_tg = _forward_to_group
    stock._match_condition = _match_condition
    stock._tg_xml = _target_group_xml
    stock.reset = _reset
    stock._ACTION_MAP.update({
        "CreateListener": _create_listener,
        "CreateRule": _create_rule,
        "CreateTargetGroup": _create_target_group,
        "DeleteListener": _delete_listener,
        "DeleteLoadBalancer": _delete_load_balancer,
        "DeleteRule": _delete_rule,
        "DeleteTargetGroup": _delete_target_group,
        "DeregisterTargets": _deregister_targets,
        "DescribeAccountLimits": _describe_account_limits,
        "DescribeListeners": _describe_listeners,
        "DescribeLoadBalancers": _describe_load_balancers,
        "DescribeRules": _describe_rules,
        "DescribeTags": _describe_tags,
        "DescribeTargetGroups": _describe_target_groups,
        "DescribeTargetHealth": _describe_target_health,
        "ModifyListener": _modify_listener,
        "ModifyRule": _modify_rule,
        "ModifyTargetGroup": _modify_target_group,
        "ModifyTargetGroupAttributes": _modify_target_group_attributes,
        "RegisterTargets": _register_targets,
        "SetRulePriorities": _set_rule_priorities,
    })

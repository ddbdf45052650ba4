"""Mend of ministack's Cloud Control: roles, subnets and security groups are told as IAM and EC2 have them, where ministack
knows only what was made through Cloud Control itself."""
import json

from ministack.core.responses import error_response_json, json_response
from ministack.services import cloudcontrol as stock
from ministack.services import ec2, iam

_stock_get = stock._get_resource


def _role(name):
    role = iam._roles.get(name)
    if role is None:
        return None
    policy = role["AssumeRolePolicyDocument"]
    return {"RoleName": name, "Arn": role["Arn"],
            "AssumeRolePolicyDocument": json.loads(policy) if isinstance(policy, str) else policy}


def _subnet(name):
    subnet = ec2._subnets.get(name)
    keys = ("SubnetId", "VpcId", "CidrBlock", "AvailabilityZone", "AvailabilityZoneId", "MapPublicIpOnLaunch")
    return subnet and {key: subnet[key] for key in keys if key in subnet}


def _rules(permissions, group, prefixes):
    """One rule for each source or destination, as CloudFormation has them."""
    peers = (("IpRanges", "CidrIp", "CidrIp"), ("Ipv6Ranges", "CidrIpv6", "CidrIpv6"),
             ("PrefixListIds", "PrefixListId", prefixes), ("UserIdGroupPairs", "GroupId", group))
    return [{**{key: one[key] for key in ("IpProtocol", "FromPort", "ToPort") if key in one}, told: peer[kept]}
            for one in permissions for where, kept, told in peers for peer in one.get(where, [])]


def _security_group(name):
    group = ec2._security_groups.get(name)
    return group and {
        "Id": name, "GroupId": name, "GroupName": group["GroupName"], "VpcId": group["VpcId"],
        "SecurityGroupIngress": _rules(group["IpPermissions"], "SourceSecurityGroupId", "SourcePrefixListId"),
        "SecurityGroupEgress": _rules(group["IpPermissionsEgress"], "DestinationSecurityGroupId",
                                      "DestinationPrefixListId"),
    }


_KINDS = {"AWS::IAM::Role": _role, "AWS::EC2::Subnet": _subnet, "AWS::EC2::SecurityGroup": _security_group}


def _get(data):
    kind, name = data.get("TypeName"), data.get("Identifier")
    if kind not in _KINDS:
        return _stock_get(data)
    ec2._ensure_defaults_initialized()
    properties = _KINDS[kind](name)
    if not properties:
        message = f"Resource of type '{kind}' with identifier '{name}' was not found."
        return error_response_json("ResourceNotFoundException", message, 400)
    described = {"Identifier": name, "Properties": json.dumps(properties)}
    return json_response({"TypeName": kind, "ResourceDescription": described})


def install():
    """Puts the mended part in the place of ministack's."""
    stock._get_resource = _get

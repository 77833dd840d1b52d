"""Kubernetes' own names and types of fields, from the models of its Python client."""

import re

from kubernetes.client import models

_MODELS = {
    ("v1", "Namespace"): "V1Namespace",
    ("v1", "ServiceAccount"): "V1ServiceAccount",
    ("v1", "ConfigMap"): "V1ConfigMap",
    ("v1", "Secret"): "V1Secret",
    ("v1", "Service"): "V1Service",
    ("v1", "PersistentVolume"): "V1PersistentVolume",
    ("v1", "ResourceQuota"): "V1ResourceQuota",
    ("v1", "LimitRange"): "V1LimitRange",
    ("apps/v1", "Deployment"): "V1Deployment",
    ("apps/v1", "StatefulSet"): "V1StatefulSet",
    ("batch/v1", "CronJob"): "V1CronJob",
    ("networking.k8s.io/v1", "NetworkPolicy"): "V1NetworkPolicy",
    ("rbac.authorization.k8s.io/v1", "Role"): "V1Role",
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): "V1RoleBinding",
    ("storage.k8s.io/v1", "StorageClass"): "V1StorageClass",
}
_PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float), "datetime": str}


def complaints(document):
    """What the API server would call unknown, missing or of a wrong type in an object."""
    model = _MODELS[document["apiVersion"], document["kind"]]
    return list(_value(document, model, document["kind"]))


def _value(value, kind, where):
    if inner := re.fullmatch(r"list\[(.+)\]", kind):
        yield from _list(value, inner[1], where)
    elif inner := re.fullmatch(r"dict\(str, (.+)\)", kind):
        yield from _mapping(value, inner[1], where)
    elif kind in _PLAIN:
        if not isinstance(value, _PLAIN[kind]) or (kind != "bool" and isinstance(value, bool)):
            yield f"{where}: {value!r} is no {kind}"
    elif kind != "object":
        yield from _object(value, getattr(models, kind), where)


def _list(value, kind, where):
    if not isinstance(value, list):
        yield f"{where}: {value!r} is no list"
        return
    for number, each in enumerate(value):
        yield from _value(each, kind, f"{where}[{number}]")


def _mapping(value, kind, where):
    if not isinstance(value, dict):
        yield f"{where}: {value!r} is no mapping"
        return
    for key, each in value.items():
        yield from _value(each, kind, f"{where}.{key}")


def _object(value, model, where):
    if not isinstance(value, dict):
        yield f"{where}: {value!r} is no {model.__name__}"
        return
    fields = {name: model.openapi_types[python] for python, name in model.attribute_map.items()}
    for name, each in value.items():
        if name not in fields:
            yield f"{where}: unknown field {name}"
        else:
            yield from _value(each, fields[name], f"{where}.{name}")

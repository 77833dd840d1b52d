"""Pod settings of a profile in Kubernetes' JSON, and the same in KFP's messages.

Steps, doctor's probes and pod groups all get their pods from `pod_fragment`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.placement.profiles import NodeAffinity, PodSettings

Json = dict[str, Any]

_TERMS = "DuringSchedulingIgnoredDuringExecution"


def pod_fragment(settings: PodSettings) -> Json:
    """Return metadata and spec of a step's pods, without image and command."""
    volumes = list(_volumes(settings))
    devices = {settings.gpu.type: str(settings.gpu.count)} if settings.gpu else {}
    container = {
        "name": "main",
        "imagePullPolicy": settings.pull_policy,
        "env": list(_variables(settings)),
        "resources": {
            "requests": {"cpu": settings.cpu.request, "memory": settings.memory.request},
            "limits": {"cpu": settings.cpu.limit, "memory": settings.memory.limit, **devices},
        },
        "volumeMounts": [{"name": each["name"], "mountPath": path} for each, path in volumes],
        "securityContext": {  # as a namespace that enforces "restricted" requires
            "runAsUser": settings.user,
            "runAsGroup": settings.group,
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    spec = {
        "nodeSelector": dict(settings.node_selector),
        "tolerations": [_filled(each.model_dump()) for each in settings.tolerations],
        "affinity": _affinity(settings),
        "imagePullSecrets": [{"name": name} for name in settings.pull_secrets],
        "volumes": [volume for volume, _ in volumes],
        "containers": [_filled(container)],
    }
    metadata = {"labels": dict(settings.labels), "annotations": dict(settings.annotations)}
    return {"metadata": _filled(metadata), "spec": _filled(spec)}


def kfp_container(pod: Json) -> Json:
    """Return resources and plain variables of a fragment for KFP's `PipelineContainerSpec`."""
    (container,) = pod["spec"]["containers"]
    env = [each for each in container.get("env", ()) if "value" in each]
    given = container.get("resources")
    return _filled({"env": env, "resources": _kfp_resources(**given) if given else {}})


def kfp_pod(pod: Json) -> Json:
    """Return the other fields of a fragment for KFP's `KubernetesExecutorConfig`."""
    spec = pod["spec"]
    (container,) = spec["containers"]
    paths = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    volumes = [(each, paths[each["name"]]) for each in spec["volumes"]]
    context = container["securityContext"]
    users = ("runAsUser", "runAsGroup", "runAsNonRoot")  # KFP itself drops all privileges
    return _filled(
        {
            "imagePullPolicy": container["imagePullPolicy"],
            "imagePullSecret": [
                _named("secretName", each["name"]) for each in spec.get("imagePullSecrets", ())
            ],
            "securityContext": {key: context[key] for key in users},
            "nodeSelector": _filled({"labels": spec.get("nodeSelector")}),
            "podMetadata": pod["metadata"],
            "tolerations": spec.get("tolerations"),
            "nodeAffinity": list(_kfp_affinity(spec.get("affinity", {}).get("nodeAffinity", {}))),
            "configMapAsEnv": list(_kfp_variables(container, "configMap")),
            "secretAsEnv": list(_kfp_variables(container, "secret")),
            "configMapAsVolume": [
                {**_named("configMapName", source["name"]), "mountPath": path}
                | {"optional": source["optional"]}
                for source, path in ((each.get("configMap"), path) for each, path in volumes)
                if source
            ],
            "emptyDirMounts": [
                {"volumeName": each["name"], "mountPath": path, **each["emptyDir"]}
                for each, path in volumes
                if "emptyDir" in each
            ],
        }
    )


def _variables(settings: PodSettings) -> Iterator[Json]:
    yield from ({"name": name, "value": value} for name, value in settings.env.items())
    for kind, sources in (("configMap", settings.config), ("secret", settings.secrets)):
        for source in sources:
            for variable, key in source.env.items():
                value = {"name": source.name, "key": key, "optional": source.optional}
                yield {"name": variable, "valueFrom": {f"{kind}KeyRef": value}}


def _volumes(settings: PodSettings) -> Iterator[tuple[Json, str]]:
    """Writable folders and ConfigMaps, with their paths."""
    scratch = settings.scratch
    # KFP's launcher mounts no /tmp, and /dev/shm is 64 MiB where nothing is mounted
    yield {"name": "tmp", "emptyDir": {"sizeLimit": scratch.tmp}}, "/tmp"
    if scratch.cache:
        yield {"name": "cache", "emptyDir": {"sizeLimit": scratch.cache}}, "/cache"
    if scratch.shared_memory:
        memory = {"medium": "Memory", "sizeLimit": scratch.shared_memory}
        yield {"name": "shared-memory", "emptyDir": memory}, "/dev/shm"
    for number, files in enumerate(settings.files):
        source = {"name": files.name, "optional": files.optional}
        yield {"name": f"files-{number}", "configMap": source}, files.path


def _affinity(settings: PodSettings) -> Json:
    required = [_term(each) for each in settings.affinity if each.weight is None]
    preferred = [
        {"weight": each.weight, "preference": _term(each)}
        for each in settings.affinity
        if each.weight is not None
    ]
    needed = _filled({"nodeSelectorTerms": required})
    terms = {f"required{_TERMS}": needed, f"preferred{_TERMS}": preferred}
    return _filled({"nodeAffinity": _filled(terms)})


def _term(affinity: NodeAffinity) -> Json:
    return {"matchExpressions": [_filled(each.model_dump(mode="json")) for each in affinity.match]}


def _kfp_resources(requests: Json, limits: Json) -> Json:
    resources: Json = {
        "resourceCpuRequest": requests["cpu"],
        "resourceCpuLimit": limits["cpu"],
        "resourceMemoryRequest": requests["memory"],
        "resourceMemoryLimit": limits["memory"],
    }
    for kind in limits.keys() - {"cpu", "memory"}:  # a profile has at most one kind of device
        resources["accelerator"] = {"resourceType": kind, "resourceCount": limits[kind]}
    return resources


def _kfp_affinity(affinity: Json) -> Iterator[Json]:
    yield from affinity.get(f"required{_TERMS}", {}).get("nodeSelectorTerms", ())
    for each in affinity.get(f"preferred{_TERMS}", ()):
        yield {**each["preference"], "weight": each["weight"]}


def _kfp_variables(container: Json, kind: str) -> Iterator[Json]:
    for each in container.get("env", ()):
        if source := each.get("valueFrom", {}).get(f"{kind}KeyRef"):
            pair = {f"{kind}Key": source["key"], "envVar": each["name"]}
            name = _named(f"{kind}Name", source["name"])
            yield {**name, "keyToEnv": [pair], "optional": source["optional"]}


def _named(field: str, name: str) -> Json:
    """A name as KFP's own functions write it: in its present field and in the one before."""
    return {field: name, f"{field}Parameter": {"runtimeValue": {"constant": name}}}


def _filled(values: Mapping[str, Any]) -> Json:
    return {key: value for key, value in values.items() if value}

"""A pod like that of a step, which tries what steps need."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.placement.profiles import EnvSource, PodSettings

CONTAINER = "probe"
LABELS = {"app.kubernetes.io/name": "brainseg-doctor"}

_AMOUNTS = {
    "requests": {"cpu": "100m", "memory": "256Mi"},
    "limits": {"cpu": "2", "memory": "1Gi"},
}


def probe_pod(
    name: str, settings: PodSettings, *, image: str, account: str, store: str, limit_s: int
) -> dict[str, Any]:
    """The pod, in Kubernetes' own JSON form.

    It has the step's settings but for its resources and queue: it is small, and not to wait.

    Args:
        name: Of the pod.
        settings: Of a step in the same image.
        image: Its full name.
        account: ServiceAccount of runs.
        store: What it tries to write to; empty for nothing.
        limit_s: Seconds after which Kubernetes ends it, whatever became of us.
    """
    spec = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": limit_s,
        "serviceAccountName": account,
        "enableServiceLinks": False,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "nodeSelector": dict(settings.node_selector),
        "tolerations": [_filled(each.model_dump()) for each in settings.tolerations],
        "affinity": _affinity(settings),
        "imagePullSecrets": [{"name": each} for each in settings.pull_secrets],
        "volumes": list(_volumes(settings)),
        "containers": [_container(settings, image, store)],
    }
    # a sidecar would go on after the probe's end; KFP's pods have none either
    no_sidecar = {"sidecar.istio.io/inject": "false"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {**LABELS, **no_sidecar}, "annotations": no_sidecar},
        "spec": _filled(spec),
    }


def _container(settings: PodSettings, image: str, store: str) -> dict[str, Any]:
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": settings.pull_policy,
        "command": ["python", "-m", "pipelines.doctor.pod", store],
        "env": list(_variables(settings)),
        "resources": _AMOUNTS,
        # its answer; where it crashes, the end of its log
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": volume["name"], "mountPath": path} for volume, path in _mounts(settings)
        ],
        "securityContext": {
            "runAsUser": settings.user,
            "runAsGroup": settings.group,
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _variables(settings: PodSettings) -> Iterator[dict[str, Any]]:
    yield from ({"name": name, "value": value} for name, value in settings.env.items())
    for kind, sources in (("configMap", settings.config), ("secret", settings.secrets)):
        for source in sources:
            yield from _of_source(f"{kind}KeyRef", source)


def _of_source(reference: str, source: EnvSource) -> Iterator[dict[str, Any]]:
    for variable, key in source.env.items():
        value = {"name": source.name, "key": key, "optional": source.optional}
        yield {"name": variable, "valueFrom": {reference: value}}


def _volumes(settings: PodSettings) -> Iterator[dict[str, Any]]:
    yield from (volume for volume, _ in _mounts(settings))


def _mounts(settings: PodSettings) -> Iterator[tuple[dict[str, Any], str]]:
    """Each volume with the place where it is seen."""
    yield {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}, "/tmp"
    yield {"name": "cache", "emptyDir": {"sizeLimit": "1Gi"}}, "/cache"
    for number, files in enumerate(settings.files):
        source = {"name": files.name, "optional": files.optional}
        yield {"name": f"files-{number}", "configMap": source}, files.path


def _affinity(settings: PodSettings) -> dict[str, Any]:
    needed = [
        {"matchExpressions": [condition.model_dump(mode="json") for condition in each.match]}
        for each in settings.affinity
        if each.weight is None
    ]
    if not needed:
        return {}
    required = {"nodeSelectorTerms": needed}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def _filled(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value}

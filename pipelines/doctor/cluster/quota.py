"""Check of the namespace's quota against the needs of the steps."""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal

from kubernetes.utils.quantity import parse_quantity

from components.shared.cluster import Cluster, Json
from pipelines.doctor.check import Check
from pipelines.doctor.cluster.target import Target
from pipelines.placement.profiles import PodSettings

_SIZES = ("cpu", "memory")
# A quota on one of these refuses containers that name none of it, such as Argo's
# (workflow-controller-configmap's `executor` sets no resources): a LimitRange has to name it
_NAMED_BY_CONTAINERS = {
    **{f"{kind}{name}": ("defaultRequest", name) for kind in ("", "requests.") for name in _SIZES},
    **{f"limits.{name}": ("default", name) for name in _SIZES},
}


def check_quota(cluster: Cluster, target: Target) -> Iterator[Check]:
    """Check that every step fits, and that containers without resources are not refused.

    Quotas for some pods only (with scopes) are not checked.
    """
    quotas = [
        each
        for each in cluster.get("resourcequotas")["items"]
        if not (each["spec"].get("scopes") or each["spec"].get("scopeSelector"))
    ]
    if not quotas:
        yield Check("quota", "ok", "none: runs may use all that the nodes have")
        return
    ranges = (each["spec"]["limits"] for each in cluster.get("limitranges")["items"])
    defaults = [each for limits in ranges for each in limits if each["type"] == "Container"]
    for quota in quotas:
        yield from _check_defaults(quota, defaults)
        yield _check_steps(quota, target.profile.steps)


def _needs(settings: PodSettings) -> dict[str, Decimal]:
    """The amounts of a step's pods by the names of quotas."""
    cpu, memory, gpu = settings.cpu, settings.memory, settings.gpu
    requests = {"cpu": cpu.request, "memory": memory.request}
    devices = {gpu.type: str(gpu.count)} if gpu else {}
    amounts = {
        "pods": "1",
        **requests,
        **{f"requests.{name}": amount for name, amount in (requests | devices).items()},
        "limits.cpu": cpu.limit,
        "limits.memory": memory.limit,
    }
    pods = settings.pod_group.pods if settings.pod_group else 1
    return {name: pods * parse_quantity(amount) for name, amount in amounts.items()}


def _check_defaults(quota: Json, defaults: Iterable[Json]) -> Iterator[Check]:
    missing = [
        f"{field}.{resource}"
        for name, (field, resource) in _NAMED_BY_CONTAINERS.items()
        if name in quota["spec"]["hard"]
        and not any(resource in each.get(field, {}) for each in defaults)
    ]
    if missing:
        advice = "kubectl apply -f manifests/base/limits/limitrange.yaml in this namespace"
        found = (
            f"{quota['metadata']['name']} refuses containers that name no resources, as Argo's, "
            f"and no LimitRange sets their {', '.join(missing)}"
        )
        yield Check("quota", "error", found, advice)


def _check_steps(quota: Json, steps: Mapping[str, PodSettings]) -> Check:
    name, hard = quota["metadata"]["name"], _amounts(quota["spec"]["hard"])
    used = _amounts(quota.get("status", {}).get("used", {}))
    left = {key: amount - used.get(key, Decimal(0)) for key, amount in hard.items()}
    advice = "raise the quota (manifests/base/limits/resourcequota.yaml), or "
    if over := list(_exceeding(steps, hard)):
        advice += "lower the profile's amounts; such a pod is never started"
        return Check("quota", "error", f"{name} allows less than {'; '.join(over)}", advice)
    if over := list(_exceeding(steps, left)):
        advice += "wait until others' pods have ended"
        return Check("quota", "warning", f"{name} has less left than {'; '.join(over)}", advice)
    return Check("quota", "ok", f"{name} has enough left for every step")


def _exceeding(steps: Mapping[str, PodSettings], limits: Mapping[str, Decimal]) -> Iterator[str]:
    """The biggest need of each resource that is above its limit."""
    for resource, limit in limits.items():
        amounts = {step: _needs(each).get(resource, Decimal(0)) for step, each in steps.items()}
        step = max(amounts, key=lambda name: amounts[name])
        if amounts[step] > limit:
            yield f"{step} needs: {resource} {_shown(amounts[step])}, not {_shown(limit)}"


def _amounts(texts: Mapping[str, str]) -> dict[str, Decimal]:
    return {name: parse_quantity(text) for name, text in texts.items()}


def _shown(amount: Decimal) -> str:
    gib = amount / 2**30
    return f"{gib:.3g}Gi" if abs(amount) >= 2**20 else f"{amount.normalize():f}"

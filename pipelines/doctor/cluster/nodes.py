"""Check of the nodes: one for every step."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal

from kubernetes.utils.quantity import parse_quantity

from components.shared.cluster import Cluster, Json
from pipelines.doctor.check import Check
from pipelines.doctor.cluster.target import Target
from pipelines.placement.profiles import NodeRequirement, PodSettings, Toleration

_ADVICE = (
    "such a pod waits for ever, unless an autoscaler adds a node: choose or change the pod profile"
)
_GPU_ADVICE = (
    "such a pod waits for ever, unless an autoscaler adds a node: use a profile without GPUs "
    "(--profile cpu), or install the device plugin of the nodes' GPUs"
)


def check_nodes(cluster: Cluster, target: Target) -> Iterator[Check]:
    """Check that each step has a node with its resources; pods that run there are not counted."""
    all_nodes = cluster.get("/api/v1/nodes")["items"]
    nodes = [node for node in all_nodes if _is_in_use(node)]
    problems: dict[tuple[str, str], list[str]] = {}
    for step, settings in target.profile.steps.items():
        if problem := _problem(settings, nodes):
            problems.setdefault(problem, []).append(step)
    for (found, advice), steps in problems.items():
        yield Check("nodes", "error", f"{', '.join(steps)}: {found}", advice)
    if not problems:
        yield Check("nodes", "ok", f"{len(nodes)} of {len(all_nodes)} ready, one for every step")


def _is_in_use(node: Json) -> bool:
    conditions = {each["type"]: each["status"] for each in node["status"]["conditions"]}
    return conditions.get("Ready") == "True" and not node["spec"].get("unschedulable")


def _problem(settings: PodSettings, nodes: Sequence[Json]) -> tuple[str, str] | None:
    """The first condition that no node meets, with what to do."""
    for resource, amount in _amounts(settings).items():
        nodes = [node for node in nodes if _has(node, resource) >= amount]
        if not nodes:
            advice = _GPU_ADVICE if settings.gpu and resource == settings.gpu.type else _ADVICE
            return f"no node has {resource} {_shown(settings, resource)}", advice
    nodes = [node for node in nodes if _is_selected(settings, node)]
    if not nodes:
        return "no such node has the labels that the profile asks for", _ADVICE
    taints = [list(_intolerable(settings.tolerations, node)) for node in nodes]
    if all(taints):
        return f"no such node takes it: taint {taints[0][0]}", f"{_ADVICE} (tolerations)"
    return None


def _amounts(settings: PodSettings) -> dict[str, Decimal]:
    gpu = {settings.gpu.type: Decimal(settings.gpu.count)} if settings.gpu else {}
    cpu, memory = settings.cpu.request, settings.memory.request
    return {**gpu, "cpu": parse_quantity(cpu), "memory": parse_quantity(memory)}


def _shown(settings: PodSettings, resource: str) -> str:
    count = str(settings.gpu.count) if settings.gpu else ""
    return {"cpu": settings.cpu.request, "memory": settings.memory.request}.get(resource, count)


def _has(node: Json, resource: str) -> Decimal:
    return Decimal(parse_quantity(node["status"]["allocatable"].get(resource, "0")))


def _is_selected(settings: PodSettings, node: Json) -> bool:
    labels = node["metadata"].get("labels", {})
    # of several required terms one is enough, as KFP's driver writes them
    # (backend/src/v2/driver/k8s.go at 2.17.0)
    terms = [each.match for each in settings.affinity if each.weight is None]
    return settings.node_selector.items() <= labels.items() and (
        not terms or any(all(_holds(one, labels) for one in term) for term in terms)
    )


def _holds(condition: NodeRequirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(condition.key)
    match condition.operator:
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "In":
            return value in condition.values
        case "NotIn":
            return value not in condition.values
        case _:
            return _is_beyond(condition, value)


def _is_beyond(condition: NodeRequirement, value: str | None) -> bool:
    try:
        number, limit = int(value or ""), int(condition.values[0])
    except (ValueError, IndexError):
        return False
    return number > limit if condition.operator == "Gt" else number < limit


def _intolerable(tolerations: Iterable[Toleration], node: Json) -> Iterator[str]:
    for taint in node["spec"].get("taints") or ():
        if taint["effect"] == "PreferNoSchedule":
            continue
        if not any(_tolerates(each, taint) for each in tolerations):
            yield f"{taint['key']}={taint.get('value', '')}:{taint['effect']}"


def _tolerates(toleration: Toleration, taint: Json) -> bool:
    same = toleration.operator == "Exists" or toleration.value == taint.get("value", "")
    return (
        same and toleration.key in ("", taint["key"]) and toleration.effect in ("", taint["effect"])
    )

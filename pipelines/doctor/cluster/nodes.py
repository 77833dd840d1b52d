"""Check of the nodes: one for every step."""

from collections.abc import Iterator, Mapping, Sequence

from kubernetes.utils.quantity import parse_quantity

from components.shared.cluster import Cluster, Json
from pipelines.doctor.check import Check
from pipelines.doctor.cluster.target import Target
from pipelines.placement.profiles import NodeRequirement, PodSettings, Toleration

_WAITS = "such a pod waits for ever, unless an autoscaler adds a node"
_ADVICE = f"{_WAITS}: choose or change the pod profile"
_GPU_ADVICE = (
    f"{_WAITS}: use a profile without GPUs (--profile cpu), or install the device plugin of the "
    "nodes' GPUs"
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
    gpu = {settings.gpu.type: str(settings.gpu.count)} if settings.gpu else {}
    amounts = {**gpu, "cpu": settings.cpu.request, "memory": settings.memory.request}
    for resource, amount in amounts.items():
        nodes = [
            node
            for node in nodes
            if parse_quantity(node["status"]["allocatable"].get(resource, "0"))
            >= parse_quantity(amount)
        ]
        if not nodes:
            return f"no node has {resource} {amount}", _GPU_ADVICE if resource in gpu else _ADVICE
    nodes = [node for node in nodes if _is_selected(settings, node)]
    if not nodes:
        return "no such node has the labels that the profile asks for", _ADVICE
    taints = [_intolerable(settings, node) for node in nodes]
    if all(taints):
        return f"no such node takes it: taint {taints[0][0]}", f"{_ADVICE} (tolerations)"
    return None


def _is_selected(settings: PodSettings, node: Json) -> bool:
    labels = node["metadata"].get("labels", {})
    # of several required terms one is enough, as KFP's driver writes them
    # (backend/src/v2/driver/k8s.go at 2.17.0)
    terms = [each.match for each in settings.affinity if each.weight is None]
    return settings.node_selector.items() <= labels.items() and (
        not terms or any(all(_holds(one, labels) for one in term) for term in terms)
    )


def _holds(condition: NodeRequirement, labels: Mapping[str, str]) -> bool:
    value, operator = labels.get(condition.key), condition.operator
    if operator in ("Exists", "DoesNotExist"):
        return (value is not None) == (operator == "Exists")
    if operator in ("In", "NotIn"):
        return (value in condition.values) == (operator == "In")
    if value is None or not value.removeprefix("-").isdecimal():
        return False
    number, limit = int(value), int(condition.values[0])
    return number > limit if operator == "Gt" else number < limit


def _intolerable(settings: PodSettings, node: Json) -> list[str]:
    return [
        f"{taint['key']}={taint.get('value', '')}:{taint['effect']}"
        for taint in node["spec"].get("taints") or ()
        if taint["effect"] != "PreferNoSchedule"
        and not any(_tolerates(each, taint) for each in settings.tolerations)
    ]


def _tolerates(one: Toleration, taint: Json) -> bool:
    same = one.operator == "Exists" or one.value == taint.get("value", "")
    return same and one.key in ("", taint["key"]) and one.effect in ("", taint["effect"])

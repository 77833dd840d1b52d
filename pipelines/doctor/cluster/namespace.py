"""Check of the namespace of runs and its Pod Security level."""

from collections.abc import Iterator

from components.shared.cluster import Cluster
from pipelines.doctor.check import Check
from pipelines.doctor.cluster.target import Target

_ENFORCE = "pod-security.kubernetes.io/enforce"


def check_namespace(cluster: Cluster, target: Target) -> Iterator[Check]:
    """Check that the namespace exists and enforces the standard "restricted"."""
    name = target.namespace
    found = cluster.find(f"/api/v1/namespaces/{name}")
    if found is None:
        advice = "give another by --namespace, or create it: see docs/get-started/cluster.md"
        yield Check("namespace", "error", f"there is no namespace {name}", advice)
        return
    if found["status"]["phase"] == "Terminating":
        advice = "wait until it is gone and create it again"
        yield Check("namespace", "error", f"{name} is being deleted", advice)
        return
    level = found["metadata"].get("labels", {}).get(_ENFORCE, "")
    if level == "restricted":
        yield Check("namespace", "ok", f"{name} enforces the Pod Security standard {level}")
    else:
        advice = (
            f"runs need no more than restricted: kubectl label namespace {name} {_ENFORCE}="
            "restricted, unless others' pods in it do"
        )
        enforced = f"enforces only {level}" if level else "enforces no Pod Security standard"
        yield Check("namespace", "warning", f"{name} {enforced}", advice)

"""Checks of Kubeflow Pipelines' API: answer, version, and where it runs pods."""

import json
from collections.abc import Iterator

from components.shared.cluster import Cluster
from components.shared.errors import UserError
from pipelines.doctor.check import Check
from pipelines.doctor.cluster.kubeflow import find_installation
from pipelines.doctor.cluster.server import is_older
from pipelines.doctor.cluster.target import Target

_OLDEST = (2, 17)  # what the compiled pipelines are written for


def check_api(cluster: Cluster, target: Target) -> Iterator[Check]:
    """Connect as `submit` does, and check that runs get their pods in the target's namespace."""
    from pipelines.kubeflow.client import connect

    try:
        kubeflow = connect(target.endpoint, target.namespace)
        service = kubeflow.api._healthz_api
        answer = kubeflow.ask(service.healthz_service_get_healthz, _preload_content=False)
    except UserError as error:
        advice = (
            "" if target.endpoint else "if it is not in this cluster, give --endpoint https://HOST"
        )
        yield Check("Kubeflow", "error", str(error), advice)
        return
    # its version is in the answer and in no model of the generated client (newHealthzResponse in
    # backend/src/apiserver/main.go at 2.17.0)
    health = json.loads(answer.data)
    many_users = bool(health.get("multi_user"))
    version = str(health.get("tag_name") or "an unknown version")
    found = f"{kubeflow.named}: {version}, for {'many users' if many_users else 'one user'}"
    if is_older(version, _OLDEST):
        advice = f"update it to {'.'.join(map(str, _OLDEST))}, which the pipelines are written for"
        yield Check("Kubeflow", "warning", found, advice)
    else:
        yield Check("Kubeflow", "ok", found)
    if not many_users:
        yield from _check_namespace(cluster, target)


def _check_namespace(cluster: Cluster, target: Target) -> Iterator[Check]:
    """KFP for one user runs all pods in its own namespace (POD_NAMESPACE of its API server)."""
    found = find_installation(cluster)
    own = found.namespace
    if own != target.namespace:
        text = f"for one user, it runs pods in its own namespace {own}, not in {target.namespace}"
        advice = (
            f"give --namespace {own}, and there apply an overlay with `namespace: {own}` and "
            "without quota, as manifests/overlays/kind"
        )
        if not found.was_seen:
            text = f"{text}, if it runs there: you may not see it"
        yield Check("place of runs", "error" if found.was_seen else "unknown", text, advice)

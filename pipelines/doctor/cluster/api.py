"""Kubeflow Pipelines' API: whether it answers, and its version."""

import json
import re
from collections.abc import Iterator

from components.shared.cluster import Cluster
from components.shared.errors import UserError
from pipelines.doctor.check import Check
from pipelines.doctor.cluster.kubeflow import find_installation
from pipelines.doctor.cluster.target import Target

_OLDEST = (2, 17)  # what the compiled pipelines are written for


def check_api(cluster: Cluster, target: Target) -> Iterator[Check]:
    """Asks it as `submit` does, and whether runs will be where they are expected.

    Raises:
        KubernetesError: If the cluster does not answer.
    """
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
    of_many = bool(health.get("multi_user"))
    users = "many users" if of_many else "one user"
    version = str(health.get("tag_name") or "an unknown version")
    found = f"{kubeflow.named}: {version}, for {users}"
    numbers = re.match(r"v?(\d+)\.(\d+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) < _OLDEST:
        advice = f"update it to {'.'.join(map(str, _OLDEST))}: this is made for and read from it"
        yield Check("Kubeflow", "warning", found, advice)
    else:
        yield Check("Kubeflow", "ok", found)
    if not of_many:
        yield from _check_namespace(cluster, target)


def _check_namespace(cluster: Cluster, target: Target) -> Iterator[Check]:
    """KFP for one user runs all pods where it is itself (POD_NAMESPACE of its API server)."""
    found = find_installation(cluster)
    own = found.namespace
    if own != target.namespace:
        told = f"for one user, it runs pods in its own namespace {own}, not in {target.namespace}"
        advice = (
            f"give --namespace {own}, and there apply an overlay with `namespace: {own}` and "
            "without quota, as manifests/overlays/kind"
        )
        if not found.was_seen:
            told = f"{told}, if that is where it is: you may not see it"
        yield Check("place of runs", "error" if found.was_seen else "unknown", told, advice)

"""Kubeflow Pipelines itself: its API, and the objects of its own manifests.

Their names are those of manifests/kustomize at 2.17.0.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from components.shared.cluster import Cluster, Json, KubernetesError
from components.shared.errors import UserError
from pipelines.doctor.check import Check
from pipelines.doctor.cluster.server import is_older
from pipelines.doctor.cluster.target import Target

SERVER, SCHEDULER = "ml-pipeline", "ml-pipeline-scheduledworkflow"

_USUAL = "kubeflow"  # the namespace of KFP's own manifests
_OLDEST = (2, 17)  # what the compiled pipelines are written for


@dataclass(frozen=True)
class Installation:
    """The objects of an installation; they raise `KubernetesError` if they may not be seen."""

    cluster: Cluster
    namespace: str
    was_seen: bool = True

    def deployment(self, name: str) -> Json:
        """Return one of its Deployments."""
        return self.cluster.get(f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{name}")

    def config_map(self, name: str, *, optional: bool = False) -> dict[str, str]:
        """Return the data of a ConfigMap; empty if an optional one is missing."""
        path = f"/api/v1/namespaces/{self.namespace}/configmaps/{name}"
        found = self.cluster.find(path) if optional else self.cluster.get(path)
        return dict((found or {}).get("data") or {})

    def variables(self, deployment: Json, names: Iterable[str]) -> dict[str, str]:
        """Return environment variables of a Deployment's container; empty if they are not set."""
        given = {each["name"]: each for each in container(deployment).get("env", ())}
        return {name: self._value(given.get(name, {})) for name in names}

    def _value(self, variable: Json) -> str:
        reference = variable.get("valueFrom", {}).get("configMapKeyRef")
        if not reference:
            return str(variable.get("value", ""))
        return self.config_map(reference["name"], optional=True).get(reference["key"], "")


def find_installation(cluster: Cluster) -> Installation:
    """Find it in any namespace, or assume the usual one if only that may be seen."""
    try:
        found = cluster.get("/apis/apps/v1/deployments", labelSelector=f"app={SERVER}")
    except KubernetesError as error:
        if error.status == 0:
            raise
        return Installation(cluster, _USUAL, was_seen=False)
    names = [str(each["metadata"]["namespace"]) for each in found["items"]]
    place = _USUAL if _USUAL in names or not names else names[0]
    return Installation(cluster, place, was_seen=bool(names))


def container(deployment: Json) -> Json:
    """Return the only container of a Deployment's pods."""
    return dict(deployment["spec"]["template"]["spec"]["containers"][0])


def check_api(cluster: Cluster, target: Target) -> Iterator[Check]:
    """Connect as `submit` does, and check that runs get their pods in the target's namespace."""
    from pipelines.kubeflow.client import connect

    try:
        kubeflow = connect(target.endpoint, target.namespace)
        service = kubeflow.api._healthz_api
        answer = kubeflow.ask(service.healthz_service_get_healthz, _preload_content=False)
    except UserError as error:
        advice = "if it is not in this cluster, give --endpoint https://HOST"
        yield Check("Kubeflow", "error", str(error), "" if target.endpoint else advice)
        return
    # its version is in the answer and in no model of the generated client (newHealthzResponse in
    # backend/src/apiserver/main.go at 2.17.0)
    health = json.loads(answer.data)
    version = str(health.get("tag_name") or "an unknown version")
    users = "many users" if health.get("multi_user") else "one user"
    found = f"{kubeflow.named}: {version}, for {users}"
    if is_older(version, _OLDEST):
        advice = f"update it to {'.'.join(map(str, _OLDEST))}, which the pipelines are written for"
        yield Check("Kubeflow", "warning", found, advice)
    else:
        yield Check("Kubeflow", "ok", found)
    if not health.get("multi_user"):
        yield from _check_place(find_installation(cluster), target)


def _check_place(found: Installation, target: Target) -> Iterator[Check]:
    """KFP for one user runs all pods in its own namespace (POD_NAMESPACE of its API server)."""
    own = found.namespace
    if own == target.namespace:
        return
    text = f"for one user, it runs pods in its own namespace {own}, not in {target.namespace}"
    advice = (
        f"give --namespace {own}, and there apply an overlay with `namespace: {own}` and "
        "without quota, as manifests/overlays/kind"
    )
    if found.was_seen:
        yield Check("place of runs", "error", text, advice)
    else:
        text += ", if it runs there: you may not see it"
        yield Check("place of runs", "unknown", text, advice)

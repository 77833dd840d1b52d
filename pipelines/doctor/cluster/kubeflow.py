"""The objects of Kubeflow Pipelines itself.

Their names are those of KFP's own manifests (manifests/kustomize at 2.17.0).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from components.shared.cluster import Cluster, Json, KubernetesError

SERVER, SCHEDULER = "ml-pipeline", "ml-pipeline-scheduledworkflow"

_USUAL = "kubeflow"  # the namespace of KFP's own manifests


@dataclass(frozen=True)
class Installation:
    """The objects of an installation; they raise `KubernetesError` if they may not be seen.

    Attributes:
        cluster: Connection to its cluster.
        namespace: Namespace of its own pods.
        was_seen: False if the usual namespace is only assumed.
    """

    cluster: Cluster
    namespace: str
    was_seen: bool = True

    def deployment(self, name: str) -> Json:
        """Return one of its Deployments."""
        return self.cluster.get(f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{name}")

    def config_map(self, name: str) -> Mapping[str, str]:
        """Return the data of a ConfigMap."""
        return dict(self.cluster.get(self._config_map(name)).get("data") or {})

    def optional_config_map(self, name: str) -> Mapping[str, str]:
        """Return the data of a ConfigMap; empty if there is none."""
        found = self.cluster.find(self._config_map(name)) or {}
        return dict(found.get("data") or {})

    def variables(self, deployment: Json, names: Iterable[str]) -> dict[str, str]:
        """Return environment variables of a Deployment's container; empty if they are not set."""
        given = {each["name"]: each for each in container(deployment).get("env", ())}
        return {name: self._value(given.get(name, {})) for name in names}

    def _value(self, variable: Json) -> str:
        reference = variable.get("valueFrom", {}).get("configMapKeyRef")
        if not reference:
            return str(variable.get("value", ""))
        return self.optional_config_map(reference["name"]).get(reference["key"], "")

    def _config_map(self, name: str) -> str:
        return f"/api/v1/namespaces/{self.namespace}/configmaps/{name}"


def find_installation(cluster: Cluster) -> Installation:
    """Find it in any namespace, or assume the usual one if only that may be seen.

    Raises:
        KubernetesError: If nothing answers.
    """
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

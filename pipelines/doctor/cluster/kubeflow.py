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
    """The objects of an installation.

    Attributes:
        cluster: Where it is.
        namespace: Of its own pods.
        was_seen: Whether its API server was found there; the usual place is assumed if not.
    """

    cluster: Cluster
    namespace: str
    was_seen: bool = True

    def deployment(self, name: str) -> Json:
        """One of its Deployments.

        Raises:
            KubernetesError: If it may not be seen.
        """
        return self.cluster.get(f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{name}")

    def config_map(self, name: str) -> Mapping[str, str]:
        """What a ConfigMap of its holds.

        Raises:
            KubernetesError: If it may not be seen.
        """
        found = self.cluster.get(self._config_map(name))
        return dict(found.get("data") or {})

    def optional_config_map(self, name: str) -> Mapping[str, str]:
        """As `config_map`, but empty where there is none.

        Raises:
            KubernetesError: If it may not be seen.
        """
        found = self.cluster.find(self._config_map(name)) or {}
        return dict(found.get("data") or {})

    def variables(self, deployment: Json, names: Iterable[str]) -> dict[str, str]:
        """Environment variables of a Deployment's container; empty where they are not set.

        Raises:
            KubernetesError: If a ConfigMap that holds one may not be seen.
        """
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
    """Looks for it in all namespaces, if that is allowed, or else in the usual one.

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
    """The only container of a Deployment's pods."""
    return dict(deployment["spec"]["template"]["spec"]["containers"][0])

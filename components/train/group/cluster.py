"""The Kubernetes requests of a step that follows a pod group."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.shared.cluster import Cluster, Json, KubernetesError, KubernetesOutageError, connect
from components.shared.errors import OutageError, UserError
from components.train.group.pod_status import pod_number

_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

# Trainer looks for a TrainJob's runtime in its cache (pkg/runtime/core/trainingruntime.go at
# 2.0.0), which may be a moment behind
_BEHIND = "must be created before the TrainJob"


class GroupCluster:
    """Objects of a pod group in one namespace.

    Every method raises `OutageError` if the API does not answer, and `UserError` if it refuses.
    """

    def __init__(self, cluster: Cluster, pod: str) -> None:
        self._cluster = cluster
        self._pod = pod

    @classmethod
    def inside(cls) -> "GroupCluster":
        """Connect to the cluster that this process's pod runs in.

        Raises:
            UserError: If the process runs in no pod, or the pod has no token.
        """
        try:
            namespace = _NAMESPACE.read_text().strip()
        except OSError as error:
            raise UserError(
                "a pod group is started from a pod whose ServiceAccount's token is mounted "
                f"({error}); on one machine train without `pod_group`"
            ) from error
        # a pod's name is its host name, unless the pod sets another: KFP passes the name
        pod = os.environ.get("KFP_POD_NAME") or os.environ["HOSTNAME"]
        return cls(connect(namespace), pod)

    def own_pod(self) -> Json:
        """Return the pod that this process runs in."""
        return dict(self._ask("GET", f"pods/{self._pod}"))

    def create(self, made: Json) -> Json | None:
        """Create an object and return it; `None` if its name is taken."""
        found: Json | None = self._ask("POST", self._folder(made), body=made, missing=(409,))
        return found

    def get(self, made: Json) -> Json | None:
        """Return the present state of an object; `None` if there is none."""
        found: Json | None = self._ask("GET", self._path(made), missing=(404,))
        return found

    def patch(self, made: Json, operations: Sequence[Json]) -> None:
        """Change an object by JSON Patch, if it exists."""
        self._ask("PATCH", self._path(made), body=operations, missing=(404,))

    def delete(self, made: Json) -> None:
        """Delete an object, if it exists, and soon afterwards what it owns."""
        query = {"propagationPolicy": "Background"}
        self._ask("DELETE", self._path(made), query=query, missing=(404,))

    def pods(self, job: str) -> list[Json]:
        """Return the pods of a Job by their number and age."""
        query = {"labelSelector": f"batch.kubernetes.io/job-name={job}"}
        found: list[Json] = self._ask("GET", "pods", query=query)["items"]
        return sorted(
            found, key=lambda pod: (pod_number(pod), pod["metadata"]["creationTimestamp"])
        )

    def warnings(self, kind: str, name: str) -> list[str]:
        """Return the messages of an object's warning events, newest last."""
        selector = f"involvedObject.kind={kind},involvedObject.name={name},type=Warning"
        events: list[Json] = self._ask("GET", "events", query={"fieldSelector": selector})["items"]
        events.sort(key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime")))
        return [str(event.get("message", "")) for event in events]

    def log(self, pod: str, seconds: int | None = None) -> list[str]:
        """Return the lines of a pod's log, of the last `seconds`, each after its time."""
        query = {"timestamps": "true"} | ({"sinceSeconds": str(seconds)} if seconds else {})
        missing = (400, 404)  # no container has started; no such pod
        text = self._ask(
            "GET", f"pods/{pod}/log", query=query, response_type="str", missing=missing
        )
        return str(text or "").splitlines()

    def _ask(self, method: str, path: str, *, missing: Sequence[int] = (), **options: Any) -> Any:  # noqa: ANN401  # JSON
        """Send a request; `None` for an answer of the HTTP statuses in `missing`."""
        try:
            return self._cluster.ask(method, path, **options)[0]
        except KubernetesOutageError as error:
            raise OutageError(f"the Kubernetes API does not answer: {error}") from error
        except KubernetesError as error:
            if error.status in missing:
                return None
            if _BEHIND in str(error):
                raise OutageError(str(error)) from error
            raise UserError(
                f"Kubernetes refuses {method} {path}: {error}; {_advice(error, path)}"
            ) from error

    def _folder(self, made: Json) -> str:
        root = "apis" if "/" in made["apiVersion"] else "api"
        namespace = f"namespaces/{self._cluster.namespace}"
        return f"/{root}/{made['apiVersion']}/{namespace}/{made['kind'].lower()}s"

    def _path(self, made: Json) -> str:
        return f"{self._folder(made)}/{made['metadata']['name']}"


def _advice(error: KubernetesError, path: str) -> str:
    if "exceeded quota" in str(error):
        return "free some of the quota, ask for less in the profile, or have it raised"
    if error.status in (401, 403):
        return "the Role of this ServiceAccount must allow it: see manifests/base/access"
    if error.status == 404 and "trainer.kubeflow.org" in path:
        return "Kubeflow Trainer 2 is not installed: install it, or set pod_group.backend=job"
    return "fix the profile's `pod_group`"

"""The cluster that a pod runs in: its API, and what its refusals mean."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from components.shared.errors import OutageError, UserError
from components.train.group.objects import Object
from components.train.group.pod_status import pod_number

_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_TIMEOUT_S = (5, 30)  # to connect, to answer

# HTTP statuses: the server is away or busy, and the same may work later
_AWAY = (429, 500, 502, 503, 504)

# Trainer looks for a TrainJob's runtime in what it knows already (pkg/runtime/core/
# trainingruntime.go at 2.0.0), which may be a moment behind
_BEHIND = "must be created before the TrainJob"


class Cluster:
    """Objects of one namespace, in Kubernetes' own JSON form.

    Every method raises `OutageError` where the API does not answer, and `UserError` where it
    refuses.

    Args:
        api: A client that is logged in.
        namespace: Of all objects.
        pod: Name of the pod that this process runs in.
    """

    def __init__(self, api: client.ApiClient, namespace: str, pod: str) -> None:
        self._api = api
        self._namespace = namespace
        self._pod = pod

    @classmethod
    def inside(cls) -> "Cluster":
        """The cluster that this process's pod is in.

        Raises:
            UserError: If the process is in no pod, or the pod has no token.
        """
        try:
            config.load_incluster_config()
            namespace = _NAMESPACE.read_text().strip()
        except (config.ConfigException, OSError) as error:
            raise UserError(
                "a pod group is started from a pod whose ServiceAccount's token is mounted "
                f"({error}); on one machine train without `pod_group`"
            ) from error
        # a pod's name is its host name, but where the pod sets another: KFP tells the name
        pod = os.environ.get("KFP_POD_NAME") or os.environ["HOSTNAME"]
        return cls(client.ApiClient(), namespace, pod)

    def own_pod(self) -> Object:
        """The pod that this process runs in."""
        return self._object("GET", f"/api/v1/{self._in('pods')}/{self._pod}")

    def create(self, made: Object) -> Object | None:
        """Makes an object and returns it; `None` if there is one of this name."""
        try:
            return self._object("POST", self._folder(made), body=made)
        except _RefusedError as error:
            if error.status == 409:
                return None
            raise

    def get(self, made: Object) -> Object | None:
        """The object of an object's kind and name, as it is now; `None` if there is none."""
        with _none_if_missing():
            return self._object("GET", self._path(made))
        return None

    def patch(self, made: Object, operations: Sequence[Object]) -> None:
        """Changes an object by JSON Patch; one that is gone stays so."""
        with _none_if_missing():
            self._object("PATCH", self._path(made), body=operations)

    def delete(self, made: Object) -> None:
        """Deletes an object, and what it owns soon after; one that is gone stays so."""
        query = {"propagationPolicy": "Background"}
        with _none_if_missing():
            self._object("DELETE", self._path(made), query=query)

    def pods(self, job: str) -> list[Object]:
        """The pods of a Job, by their number and age."""
        query = {"labelSelector": f"batch.kubernetes.io/job-name={job}"}
        found: list[Object] = self._object("GET", f"/api/v1/{self._in('pods')}", query=query)[
            "items"
        ]
        return sorted(
            found, key=lambda pod: (pod_number(pod), pod["metadata"]["creationTimestamp"])
        )

    def warnings(self, kind: str, name: str) -> list[str]:
        """What the cluster has to complain of an object, newest last."""
        selector = f"involvedObject.kind={kind},involvedObject.name={name},type=Warning"
        query = {"fieldSelector": selector}
        events = self._object("GET", f"/api/v1/{self._in('events')}", query=query)["items"]
        events.sort(key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime")))
        return [str(event.get("message", "")) for event in events]

    def log(self, pod: str, seconds: int | None = None) -> list[str]:
        """Lines of a pod's log, each behind its time; empty before there is one.

        Args:
            pod: Its name.
            seconds: Only lines that are not older.
        """
        query = {"timestamps": "true"} | ({"sinceSeconds": str(seconds)} if seconds else {})
        path = f"/api/v1/{self._in('pods')}/{pod}/log"
        try:
            return str(self._call("GET", path, query=query, form="str")).splitlines()
        except _RefusedError as error:
            if error.status in (400, 404):  # the container has not started; the pod is gone
                return []
            raise

    def _object(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | Sequence[Object] | None = None,
    ) -> Object:
        return dict(self._call(method, path, query=query or {}, body=body))

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        body: Object | Sequence[Object] | None = None,
        form: str = "object",
    ) -> Any:  # noqa: ANN401  # JSON
        """One request; the client's own models refuse what a newer server says."""
        patch = "application/json-patch+json"
        headers = {"Content-Type": patch if method == "PATCH" else "application/json"}
        with _explained(method, path):
            return self._api.call_api(
                path,
                method,
                query_params=list(query.items()),
                header_params={**headers, "Accept": "application/json, */*"},
                body=body,
                response_type=form,
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _request_timeout=_TIMEOUT_S,
            )

    def _in(self, kind: str) -> str:
        return f"namespaces/{self._namespace}/{kind}"

    def _folder(self, made: Object) -> str:
        version = made["apiVersion"]
        return f"/{'apis' if '/' in version else 'api'}/{version}/{self._in(_plural(made))}"

    def _path(self, made: Object) -> str:
        return f"{self._folder(made)}/{made['metadata']['name']}"


class _RefusedError(UserError):
    """A refusal with its HTTP status."""

    status: int = 0


def _plural(made: Object) -> str:
    return f"{made['kind'].lower()}s"


@contextlib.contextmanager
def _none_if_missing() -> Iterator[None]:
    try:
        yield
    except _RefusedError as error:
        if error.status != 404:
            raise


@contextlib.contextmanager
def _explained(method: str, path: str) -> Iterator[None]:
    """Turns a refusal into one message that says what to do."""
    try:
        yield
    except HTTPError as error:
        raise OutageError(f"the Kubernetes API does not answer: {error}") from error
    except ApiException as error:
        said = _said(error)
        if error.status in _AWAY or _BEHIND in said:
            raise OutageError(f"the Kubernetes API answered {error.status}: {said}") from error
        refused = _RefusedError(
            f"Kubernetes refuses {method} {path}: {said}; {_advice(error, path)}"
        )
        refused.status = error.status
        raise refused from error


def _said(error: ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"]).rstrip(".")
    except (TypeError, ValueError, KeyError):
        return str(error.reason)


def _advice(error: ApiException, path: str) -> str:
    said = _said(error)
    if "exceeded quota" in said:
        return "free some of the quota, ask for less in the profile, or have it raised"
    if error.status in (401, 403):
        return "the Role of this ServiceAccount must allow it: see manifests/base/access"
    if error.status == 404 and "trainer.kubeflow.org" in path:
        return "Kubeflow Trainer 2 is not installed: install it, or set pod_group.backend=job"
    return "mend what it says in the profile's `pod_group`"

"""The cluster that a pod runs in: its API, and what its refusals mean."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from components.shared.errors import OutageError, UserError
from components.train.group.objects import Object
from components.train.group.story import pod_number

_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_TIMEOUT_S = (5, 30)  # to connect, to answer

# HTTP statuses: the server is away or busy, and the same may work later
_AWAY = (429, 500, 502, 503, 504)


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
        self.namespace = namespace
        self._api = api
        self._core = client.CoreV1Api(api)
        self._custom = client.CustomObjectsApi(api)
        patching = client.ApiClient(api.configuration)
        # by itself the client sends a patch of whatever form as a merge patch
        patching.set_default_header("Content-Type", "application/json-patch+json")
        self._patching = client.CustomObjectsApi(patching)
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
                f"({error}); on one machine train without `group`"
            ) from error
        # a pod's name is its host name, but where the pod sets another: KFP tells the name
        pod = os.environ.get("KFP_POD_NAME") or os.environ["HOSTNAME"]
        return cls(client.ApiClient(), namespace, pod)

    def own_pod(self) -> Object:
        """The pod that this process runs in."""
        with _explained("get", "pods", self.namespace):
            return self._plain(
                self._core.read_namespaced_pod(
                    self._pod, self.namespace, _request_timeout=_TIMEOUT_S
                )
            )

    def create(self, made: Object) -> Object | None:
        """Makes an object and returns it; `None` if there is one of this name."""
        kind = _plural(made)
        with _explained("create", kind, self.namespace):
            try:
                return self._create(made)
            except ApiException as error:
                if error.status == 409:
                    return None
                raise

    def get(self, made: Object) -> Object | None:
        """The object of an object's kind and name, as it is now; `None` if there is none."""
        with _explained("get", _plural(made), self.namespace), _none_if_missing():
            found = self._custom.get_namespaced_custom_object(
                *_place(made, self.namespace), _request_timeout=_TIMEOUT_S
            )
            return dict(found)
        return None

    def patch(self, made: Object, operations: list[Object]) -> None:
        """Changes an object by JSON Patch; one that is gone stays so."""
        with _explained("patch", _plural(made), self.namespace), _none_if_missing():
            self._patching.patch_namespaced_custom_object(
                *_place(made, self.namespace), operations, _request_timeout=_TIMEOUT_S
            )

    def delete(self, made: Object) -> None:
        """Deletes an object, and what it owns soon after; one that is gone stays so."""
        with _explained("delete", _plural(made), self.namespace), _none_if_missing():
            self._custom.delete_namespaced_custom_object(
                *_place(made, self.namespace),
                propagation_policy="Background",
                _request_timeout=_TIMEOUT_S,
            )

    def pods(self, job: str) -> list[Object]:
        """The pods of a Job, by their number and age."""
        with _explained("list", "pods", self.namespace):
            found = self._core.list_namespaced_pod(
                self.namespace,
                label_selector=f"batch.kubernetes.io/job-name={job}",
                _request_timeout=_TIMEOUT_S,
            )
        pods: list[Object] = [self._plain(each) for each in found.items]
        return sorted(pods, key=lambda pod: (pod_number(pod), pod["metadata"]["creationTimestamp"]))

    def warnings(self, kind: str, name: str) -> list[str]:
        """What the cluster has to complain of an object, newest last."""
        selector = f"involvedObject.kind={kind},involvedObject.name={name},type=Warning"
        with _explained("list", "events", self.namespace):
            found = self._core.list_namespaced_event(
                self.namespace, field_selector=selector, _request_timeout=_TIMEOUT_S
            )
        events: list[Object] = [self._plain(each) for each in found.items]
        events.sort(key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime")))
        return [str(event.get("message", "")) for event in events]

    def log(self, pod: str, seconds: int | None = None) -> list[str]:
        """Lines of a pod's log, each behind its time; empty before there is one.

        Args:
            pod: Its name.
            seconds: Only lines that are not older.
        """
        with _explained("get", "pods/log", self.namespace):
            try:
                text = self._core.read_namespaced_pod_log(
                    pod,
                    self.namespace,
                    timestamps=True,
                    since_seconds=seconds,
                    _request_timeout=_TIMEOUT_S,
                )
            except ApiException as error:
                if error.status in (400, 404):  # the container has not started; the pod is gone
                    return []
                raise
        return str(text).splitlines()

    def _create(self, made: Object) -> Object:
        if made["kind"] == "Service":
            return self._plain(
                self._core.create_namespaced_service(
                    self.namespace, made, _request_timeout=_TIMEOUT_S
                )
            )
        *place, _ = _place(made, self.namespace)
        created = self._custom.create_namespaced_custom_object(
            *place, made, _request_timeout=_TIMEOUT_S
        )
        return dict(created)

    def _plain(self, found: object) -> Object:
        return dict(self._api.sanitize_for_serialization(found))


def _plural(made: Object) -> str:
    return f"{made['kind'].lower()}s"


def _place(made: Object, namespace: str) -> tuple[str, str, str, str, str]:
    group, _, version = made["apiVersion"].rpartition("/")
    return group, version, namespace, _plural(made), made["metadata"]["name"]


@contextlib.contextmanager
def _none_if_missing() -> Iterator[None]:
    try:
        yield
    except ApiException as error:
        if error.status != 404:
            raise


@contextlib.contextmanager
def _explained(verb: str, kind: str, namespace: str) -> Iterator[None]:
    """Turns a refusal into one message that says what to do."""
    try:
        yield
    except HTTPError as error:
        raise OutageError(f"the Kubernetes API does not answer: {error}") from error
    except ApiException as error:
        if error.status in _AWAY:
            said = f"the Kubernetes API answered {error.status}: {_said(error)}"
            raise OutageError(said) from error
        advice = _advice(error, verb, kind)
        raise UserError(
            f"cannot {verb} {kind} in namespace {namespace}: {_said(error)}; {advice}"
        ) from error


def _said(error: ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"]).rstrip(".")
    except (TypeError, ValueError, KeyError):
        return str(error.reason)


def _advice(error: ApiException, verb: str, kind: str) -> str:
    said = _said(error)
    if "exceeded quota" in said:
        return "free some of the quota, ask for less in the profile, or have it raised"
    if error.status == 403 and "cannot" in said:
        return f"the Role of this ServiceAccount lacks `{verb}` on `{kind}`: see manifests/"
    if error.status == 404 and kind in ("trainjobs", "trainingruntimes"):
        return "Kubeflow Trainer 2 is not installed: use group.backend=job, or install it"
    return "mend what it says in the profile's `group`"

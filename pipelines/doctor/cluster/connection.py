"""A Kubernetes API, asked with a limit of time for all questions together."""

import json
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import kubernetes
import urllib3
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException

from components.shared.errors import UserError
from pipelines.doctor.check import Check
from pipelines.kubeflow.pods import NoClusterError, find_cluster

Json = dict[str, Any]

_LOGIN_S, _CONNECT_S, _ANSWER_S = 20.0, 3.0, 10.0
_THREADS = 32  # at most as many ask at a time
_LOGIN = "log in again with the tool that wrote the kubeconfig, or choose another context"


class KubernetesError(Exception):
    """The API refused something, or did not answer; the text is its own.

    Attributes:
        status: Of HTTP; 0 if there was no answer.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Cluster:
    """A connection to one namespace; any number of threads may ask.

    Attributes:
        api: The client.
        namespace: Of runs.
        end: Of all questions, as `time.monotonic` counts.
    """

    api: ApiClient
    namespace: str
    end: float

    @property
    def address(self) -> str:
        """Where the API server is."""
        return str(self.api.configuration.host)

    @property
    def left_s(self) -> float:
        """Seconds until the end."""
        return self.end - time.monotonic()

    def get(self, path: str, **query: str) -> Json:
        """What is at a path, in Kubernetes' own JSON form.

        Args:
            path: From `/`, or within the namespace, e.g. `secrets/NAME`.
            query: E.g. a selector.

        Raises:
            KubernetesError: If it is not there, is refused, or nothing answers in time.
        """
        return dict(self.ask("GET", path, query=query)[0])

    def find(self, path: str) -> Json | None:
        """As `get`, but `None` where nothing is.

        Raises:
            KubernetesError: If it is refused, or nothing answers in time.
        """
        try:
            return self.get(path)
        except KubernetesError as error:
            if error.status != 404:
                raise
            return None

    def create(self, path: str, body: Json, headers: Mapping[str, str] | None = None) -> Json:
        """Sends an object and returns what became of it.

        Raises:
            KubernetesError: If it is refused, or nothing answers in time.
        """
        return dict(self.ask("POST", path, body=body, headers=headers)[0])

    def delete(self, path: str) -> None:
        """Deletes an object at once, also when the time for questions is over.

        Raises:
            KubernetesError: If it is refused, or nothing answers.
        """
        self.ask("DELETE", path, query={"gracePeriodSeconds": "0"}, left_s=_ANSWER_S)

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        response_type: str = "object",
        left_s: float | None = None,
    ) -> tuple[Any, Mapping[str, str]]:
        """An answer with its headers.

        Args:
            method: Of HTTP.
            path: From `/`, or within the namespace.
            body: What is sent.
            query: Of the address.
            headers: Beside the usual ones.
            response_type: `object` for plain JSON, or a model of Kubernetes' client.
            left_s: Seconds for the answer at most; by default what is left for all questions.

        Raises:
            KubernetesError: If it is refused, or nothing answers in time.
        """
        left_s = self.left_s if left_s is None else left_s
        if left_s <= 0:
            raise KubernetesError("no time was left to ask: the API server answers slowly", 0)
        try:
            data, _, sent = self.api.call_api(
                path if path.startswith("/") else f"/api/v1/namespaces/{self.namespace}/{path}",
                method,
                query_params=list((query or {}).items()),
                header_params={"Content-Type": "application/json", **(headers or {})},
                body=body,
                response_type=response_type,
                auth_settings=["BearerToken"],
                _request_timeout=(min(_CONNECT_S, left_s), min(_ANSWER_S, left_s)),
            )
        except ApiException as error:
            raise KubernetesError(_told(error), error.status or 0) from error
        except urllib3.exceptions.HTTPError as error:
            reason = getattr(error, "reason", None) or error
            raise KubernetesError(f"no answer ({type(reason).__name__})", 0) from error
        return data, sent


def connect(namespace: str, limit_s: float) -> Cluster:
    """Finds the cluster of this pod or of the kubeconfig.

    Args:
        namespace: Of runs.
        limit_s: Seconds for all questions together.

    Raises:
        UserError: If nothing names a cluster.
    """
    _find_in_time()
    settings = Configuration.get_default_copy()
    settings.retries = False  # a server that is away is told, not waited for
    settings.connection_pool_maxsize = _THREADS
    return Cluster(kubernetes.client.ApiClient(settings), namespace, time.monotonic() + limit_s)


def unknown(name: str, error: KubernetesError) -> Check:
    """What cannot be found out, with what to do."""
    if error.status == 403:
        advice = "ask someone who may look, or have this right given to you"
    else:
        advice = "try again; if it stays so, ask who runs the cluster"
    return Check(name, "unknown", str(error), advice)


def refusal(cluster: Cluster, error: KubernetesError) -> UserError:
    """What it means that a cluster does not even say who asks."""
    if error.status in (401, 403):
        return UserError(
            f"Kubernetes at {cluster.address} does not know who asks ({error.status}): the "
            f"kubeconfig's token or certificate is missing or has expired; {_LOGIN}"
        )
    return UserError(
        f"Kubernetes at {cluster.address} cannot be asked: {error}; check the network or VPN, and "
        "the context: `kubectl config current-context`"
    )


def _find_in_time() -> None:
    """A kubeconfig may name a command that logs in, and that may wait for someone."""
    outcome: queue.SimpleQueue[NoClusterError | None] = queue.SimpleQueue()

    def find() -> None:
        try:
            find_cluster()
            outcome.put(None)
        except NoClusterError as error:
            outcome.put(error)

    threading.Thread(target=find, daemon=True).start()
    try:
        error = outcome.get(timeout=_LOGIN_S)
    except queue.Empty:
        raise UserError(
            f"the kubeconfig's command that logs in has not ended within {_LOGIN_S:.0f} s; see "
            "what it waits for: kubectl get namespaces"
        ) from None
    if error:
        raise UserError(
            f"no cluster is named ({error.__cause__ or error}); name a kubeconfig in KUBECONFIG, "
            "and one of its contexts by `kubectl config use-context NAME`"
        ) from error


def _told(error: ApiException) -> str:
    """Kubernetes' own words; a proxy's in front of it may be a page."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"

"""A client of Kubernetes' API: login, time limits and error messages.

Objects are plain JSON, as Kubernetes documents them: the models of the Python client refuse fields
of newer servers.
"""

import json
import math
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import urllib3
import yaml
from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException

from components.shared.errors import OutageError, UserError

Json = dict[str, Any]

_LOGIN_S, _CONNECT_S, _ANSWER_S = 20.0, 3.0, 10.0
_CONNECTIONS = 32  # threads that may ask at a time
_AWAY = (429, 500, 502, 503, 504)  # HTTP statuses of a server that is away or busy


class KubernetesError(UserError):
    """Kubernetes refused a request; the message is its own.

    Attributes:
        status: HTTP status; 0 without an answer.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class KubernetesOutageError(KubernetesError, OutageError):
    """Kubernetes is busy or did not answer: the same request may succeed later."""


class NoClusterError(UserError):
    """The process runs in no pod, and no kubeconfig names a cluster."""


@dataclass(frozen=True)
class Cluster:
    """A connection to one namespace; any number of threads may ask.

    Every method raises `KubernetesError` if a request is refused, and `KubernetesOutageError` if
    nothing answers in time.

    Attributes:
        api: Logged-in client.
        namespace: Namespace of relative paths.
        end: `time.monotonic` value after which nothing is asked.
    """

    api: ApiClient
    namespace: str
    end: float = math.inf

    @property
    def address(self) -> str:
        """URL of the API server."""
        return str(self.api.configuration.host)

    @property
    def left_s(self) -> float:
        """Seconds until the end."""
        return self.end - time.monotonic()

    def get(self, path: str, **query: str) -> Json:
        """Return the object or list at a path; `query` holds selectors."""
        return dict(self.ask("GET", path, query=query)[0])

    def find(self, path: str) -> Json | None:
        """Return the object at a path, or `None` if there is none."""
        try:
            return self.get(path)
        except KubernetesError as error:
            if error.status != 404:
                raise
            return None

    def create(self, path: str, body: Json, headers: Mapping[str, str] | None = None) -> Json:
        """Create an object in the collection at a path and return it."""
        return dict(self.ask("POST", path, body=body, headers=headers)[0])

    def delete(self, path: str, **query: str) -> None:
        """Delete an object, also after the end; `query` holds options."""
        self.ask("DELETE", path, query=query, left_s=_ANSWER_S)

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: Json | Sequence[Json] | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        response_type: str = "object",
        left_s: float | None = None,
    ) -> tuple[Any, Mapping[str, str]]:
        """Send one request and return the answer with its headers.

        Args:
            method: HTTP method.
            path: Path from `/`, or relative to the namespace in the core API: `secrets/NAME`.
            body: Object, or list of JSON Patch operations.
            query: Query parameters.
            headers: Further headers.
            response_type: `object` for JSON, `str` for text.
            left_s: Time limit in seconds (default: the time until the end).
        """
        left_s = self.left_s if left_s is None else left_s
        if left_s <= 0:
            raise KubernetesOutageError("no time was left: the API server answers slowly", 0)
        content = "json-patch+json" if method == "PATCH" else "json"
        try:
            data, _, received = self.api.call_api(
                path if path.startswith("/") else f"/api/v1/namespaces/{self.namespace}/{path}",
                method,
                query_params=list((query or {}).items()),
                header_params={"Content-Type": f"application/{content}", **(headers or {})},
                body=body,
                response_type=response_type,
                auth_settings=["BearerToken"],
                _request_timeout=(min(_CONNECT_S, left_s), min(_ANSWER_S, left_s)),
            )
        except ApiException as error:
            kind = KubernetesOutageError if error.status in _AWAY else KubernetesError
            raise kind(_message(error), error.status or 0) from error
        except urllib3.exceptions.HTTPError as error:
            reason = getattr(error, "reason", None) or error
            raise KubernetesOutageError(f"no answer ({type(reason).__name__})", 0) from error
        return data, received


def connect(namespace: str, limit_s: float = math.inf) -> Cluster:
    """Log in as `login` does; `limit_s` is the time limit of all requests together."""
    login()
    settings = Configuration.get_default_copy()
    settings.retries = False  # a server that is away is reported; callers decide about retries
    settings.connection_pool_maxsize = _CONNECTIONS
    return Cluster(ApiClient(settings), namespace, time.monotonic() + limit_s)


def login() -> None:
    """Log in to the cluster of this pod or of the kubeconfig, whose login command may hang.

    Raises:
        NoClusterError: If no cluster is named.
        UserError: If the login takes too long.
    """
    outcome: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    threading.Thread(target=lambda: outcome.put(_login()), daemon=True).start()
    try:
        error = outcome.get(timeout=_LOGIN_S)
    except queue.Empty:
        raise UserError(
            f"the kubeconfig's login command has not ended within {_LOGIN_S:.0f} s; see what it "
            "waits for: kubectl get namespaces"
        ) from None
    if error:
        raise NoClusterError(
            f"no cluster is named ({error}); name a kubeconfig in KUBECONFIG, and one of its "
            "contexts by `kubectl config use-context NAME`"
        ) from error


def _login() -> Exception | None:
    try:
        config.load_incluster_config()
    except config.ConfigException:
        try:
            config.load_kube_config()
        except (config.ConfigException, yaml.YAMLError) as error:
            return error
    return None


def _message(error: ApiException) -> str:
    """Kubernetes' own message; a proxy in front of it may answer with a page."""
    try:
        return str(json.loads(error.body)["message"]).rstrip(".")
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"

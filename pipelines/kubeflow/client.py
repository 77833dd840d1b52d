"""Connection to an installation of Kubeflow Pipelines, with KFP's own client."""

import contextlib
import json
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import kfp
import kfp_server_api
import urllib3
from kfp import client as kfp_client
from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials

from components.shared.cluster import NoClusterError, login
from components.shared.errors import UserError

Answer = TypeVar("Answer")

_TIMEOUTS_S = (5, 30)  # to connect, to answer; the generated client would wait forever
_ENDPOINT = "KF_PIPELINES_ENDPOINT"
_UI = "KF_PIPELINES_UI_ENDPOINT"


class KubeflowError(UserError):
    """A refusal of Kubeflow Pipelines with its HTTP status, or no answer (0)."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status

    @property
    def may_pass(self) -> bool:
        """True if a later attempt may succeed."""
        return self.status in (0, 429) or self.status >= 500


@dataclass(frozen=True)
class Kubeflow:
    """A connection.

    Attributes:
        api: KFP's client; its generated services (`api.runs`, ...) are called through `ask`.
        named: Name of the installation in messages.
        namespace: Namespace of runs and schedules; empty in a single-user installation.
        ui: Address of its pages without `/` at the end; empty if unknown.
    """

    api: kfp.Client
    named: str
    namespace: str
    ui: str

    def ask(self, call: Callable[..., Answer], *values: object, **named: object) -> Answer:
        """Calls one of the generated services; raises `KubeflowError` with advice."""
        with _explained(self.named, self.namespace):
            return call(*values, _request_timeout=_TIMEOUTS_S, **named)

    def rows(
        self, call: Callable[..., Any], of: str, *values: object, **named: object
    ) -> Iterator[Any]:
        """All rows of a list, page by page; `of` is their field in the answer of the service."""
        token, more = "", True
        while more:
            page = self.ask(call, *values, page_size=100, page_token=token, **named)
            yield from getattr(page, of) or ()
            token, more = page.next_page_token, bool(page.next_page_token)

    def link(self, page: str) -> str:
        """The address of a page of the UI, e.g. `runs/details/ID`; empty if it is unknown."""
        return f"{self.ui}/#/{page}" if self.ui else ""


def connect(endpoint: str = "", namespace: str = "") -> Kubeflow:
    """Connects to an installation and checks that it answers.

    The address comes from `endpoint`, `KF_PIPELINES_ENDPOINT`, the pod's cluster or the
    kubeconfig, in this order; a token from `KF_PIPELINES_SA_TOKEN_PATH` or the file that
    Kubernetes mounts for it; cookies and headers from `~/.config/kfp/context.json`.

    Args:
        endpoint: Address of the UI or of the API server.
        namespace: Namespace of runs and schedules in a multi-user installation (default: that of
            `context.json` or of this pod).

    Raises:
        UserError: If it does not answer or refuses, or no address or needed namespace is known.
    """
    given = _with_scheme((endpoint or os.environ.get(_ENDPOINT, "")).rstrip("/"))
    named = f"Kubeflow Pipelines at {given}" if given else "the cluster's Kubeflow Pipelines"
    with _explained(named, namespace):
        api = _client(given)
        many_users = api.get_kfp_healthz().multi_user
    users = namespace or api.get_user_namespace()
    if many_users and not users:
        raise UserError(f"{named} has many users: give the namespace of the runs with --namespace")
    ui = _with_scheme(os.environ.get(_UI, "").rstrip("/")) or given
    return Kubeflow(api, named, users if many_users else "", ui)


def equals(field: str, value: str) -> str:
    """A filter of lists. KFP's database ignores case, so results need another comparison."""
    predicate = {"key": field, "operation": "EQUALS", "string_value": value}
    return json.dumps({"predicates": [predicate]})


def _with_scheme(address: str) -> str:
    full = f"https://{address}" if address and "://" not in address else address
    if full and not full.startswith(("http://", "https://")):
        raise UserError(f"{address!r} is not an address: give --endpoint https://HOST")
    return full


class _PageError(Exception):
    """An answer that is a page."""


class _Client(kfp.Client):  # type: ignore[misc] # kfp has no types
    """KFP's client, without its five attempts, 5 s apart, to reach a server at the start."""

    def get_kfp_healthz(self, sleep_duration: int = 0) -> kfp_server_api.V2beta1GetHealthzResponse:
        del sleep_duration
        service = self._healthz_api
        answer = service.healthz_service_get_healthz(
            _preload_content=False, _request_timeout=_TIMEOUTS_S
        )
        # The generated client takes a page of HTML for an answer without fields.
        content = _json(answer.data.decode(errors="replace"))
        if not isinstance(content, dict):
            raise _PageError
        many_users = bool(content.get("multi_user"))
        return kfp_server_api.V2beta1GetHealthzResponse(multi_user=many_users)

    def _load_config(self, *values: object, **named: object) -> kfp_server_api.Configuration:
        """Keeps the path through the cluster's API server if the kubeconfig has a token.

        Kubernetes' client then resets the address without that path at each request, and itself
        as the hook (`_set_config` in kubernetes/config/kube_config.py at 30.1).
        """
        config = super()._load_config(*values, **named)
        address, refresh = config.host, config.refresh_api_key_hook

        def refresh_token(config: kfp_server_api.Configuration) -> None:
            refresh(config)
            config.host, config.refresh_api_key_hook = address, refresh_token

        if refresh:
            config.refresh_api_key_hook = refresh_token
        return config


def _client(endpoint: str) -> kfp.Client:
    try:
        if not endpoint:
            login()  # KFP's client would use http://localhost
    except NoClusterError as error:
        raise UserError(
            "the address of Kubeflow Pipelines is unknown: give --endpoint https://HOST (or "
            f"port-forward its UI and give http://localhost:8080), set {_ENDPOINT}, or use a "
            "kubeconfig of its cluster"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # "works with 2.0.0-beta.2 and later"
        return _Client(
            host=endpoint or None,
            credentials=_credentials(),
            ssl_ca_cert=os.environ.get("SSL_CERT_FILE"),
        )


def _credentials() -> ServiceAccountTokenVolumeCredentials | None:
    """The token file: KFP's client uses it only if no address is given."""
    named = os.environ.get(kfp_client.KF_PIPELINES_SA_TOKEN_ENV)
    path = Path(named or kfp_client.KF_PIPELINES_SA_TOKEN_PATH)
    if not named and not path.exists():
        return None
    try:
        path.read_text()
    except OSError as error:
        raise UserError(
            f"the token {path} cannot be read: {error.strerror}; name the right file in "
            f"{kfp_client.KF_PIPELINES_SA_TOKEN_ENV}"
        ) from error
    return ServiceAccountTokenVolumeCredentials(str(path))


@contextlib.contextmanager
def _explained(named: str, namespace: str) -> Iterator[None]:
    try:
        yield
    except kfp_server_api.ApiException as error:
        status = error.status or 0
        raise KubeflowError(_advice(error, named, namespace), status) from error
    except urllib3.exceptions.HTTPError as error:
        raise KubeflowError(_no_answer(error, named), 0) from error
    except json.JSONDecodeError as error:
        raise UserError(f"~/.config/kfp/context.json is not JSON ({error}): correct it") from error
    except _PageError as error:
        raise KubeflowError(
            f"{named} answers with a page, not as an API: log in (a cookie belongs in "
            "~/.config/kfp/context.json, a token in the file of KF_PIPELINES_SA_TOKEN_PATH), or "
            "give the address of Kubeflow Pipelines itself with --endpoint",
            401,
        ) from error


def _advice(error: kfp_server_api.ApiException, named: str, namespace: str) -> str:
    message = _message(error)
    if error.status == 401:
        return (
            f"{named} does not know the user (401): the token is missing or has expired; renew "
            "the file of KF_PIPELINES_SA_TOKEN_PATH, or the cookie in "
            f"~/.config/kfp/context.json ({message})"
        )
    if error.status == 403:
        place = f" in the namespace {namespace}" if namespace else ""
        return (
            f"{named} does not allow this{place} (403): check --namespace, or ask for a role with "
            f"the rights of kubeflow-edit there ({message})"
        )
    if error.status == 404 and not isinstance(_body(error), dict):
        return f"{named} is not an API of Kubeflow Pipelines 2 (404): check --endpoint"
    if error.status == 0:
        return f"{named}: {message}; set SSL_CERT_FILE to its authority's certificate"
    if error.status in (502, 503, 504):
        return f"{named} is not ready ({error.status}): try again in a minute ({message})"
    return f"{named} refuses ({error.status}): {message}"


def _message(error: kfp_server_api.ApiException) -> str:
    """KFP's message for users, or its whole chain of errors."""
    body = _body(error)
    if not isinstance(body, dict):
        return " ".join(str(error.reason or body).split())[:300]
    details = [part.get("message") for part in body.get("details", ()) if isinstance(part, dict)]
    best = next((text for text in details if text and text != "Internal Server Error"), None)
    return str(best or body.get("message") or body.get("error_message") or error.reason)


def _body(error: kfp_server_api.ApiException) -> object:
    text = error.body.decode(errors="replace") if isinstance(error.body, bytes) else error.body
    return _json(text or "")


def _json(text: str) -> object:
    """The JSON value of a text, or the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _no_answer(error: urllib3.exceptions.HTTPError, named: str) -> str:
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, urllib3.exceptions.LocationValueError):
        return f"{named}: this is not an address; give --endpoint https://HOST"
    if isinstance(reason, urllib3.exceptions.SSLError):
        return f"{named}: {reason}; set SSL_CERT_FILE to its authority's certificate"
    return (
        f"{named} does not answer ({type(reason).__name__}): check --endpoint, the network or the "
        "port-forward"
    )

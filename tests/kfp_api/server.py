"""KFP's HTTP API over a `Backend`, with the accidents that a network has.

Paths are those of `kfp_server_api`; every request and answer is compared with its models.
"""

import contextlib
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, Response, request
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.kfp_api.backend import Backend, Json, matching
from tests.kfp_api.models import check_answer, check_request
from tests.kfp_api.refusal import Code, Refusal

_V2 = "/apis/v2beta1"
_PROXY = "/api/v1/namespaces/kubeflow/services/ml-pipeline:http/proxy/"
_LOGIN = "<!doctype html><html><title>Log in</title></html>"


@dataclass
class Accident:
    """What happens to requests before the API sees them, or to its answers.

    Attributes:
        path: Regular expression of `METHOD /path`.
        kind: `cut` (the request is done, the answer never comes), `login` (a page of a proxy),
            or a status as text, e.g. `503`.
        times: How often.
    """

    path: str
    kind: str
    times: int = 1


@dataclass
class Server:
    """A running server.

    Attributes:
        url: Where it listens.
        backend: What it holds.
        accidents: What will happen.
        token: What callers must show; empty: nothing.
        latency_s: How long every answer takes.
        requests: What was asked so far, as `METHOD /path`.
    """

    backend: Backend
    url: str = ""
    accidents: list[Accident] = field(default_factory=list)
    token: str = ""
    latency_s: float = 0.0
    requests: list[str] = field(default_factory=list)

    def sent(self, method: str = "") -> list[str]:
        """The requests of a method; those that change something, if none is named."""
        changing = (method,) if method else ("POST", "PATCH", "DELETE")
        return [one for one in self.requests if one.startswith(changing)]

    def accident(self, asked: str) -> str:
        for one in self.accidents:
            if one.times and re.search(one.path, asked):
                one.times -= 1
                return one.kind
        return ""


@contextlib.contextmanager
def serve(
    backend: Backend | None = None, *, tls: ssl.SSLContext | None = None, **options: Any
) -> Iterator[Server]:
    """Runs a server on a free port of this machine."""
    served = Server(backend or Backend(), **options)
    listening = make_server(
        "127.0.0.1",
        0,
        _app(served),
        threaded=True,
        request_handler=_QuietHandler,
        ssl_context=tls,
    )
    served.url = f"http{'s' if tls else ''}://127.0.0.1:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever, args=[0.02], daemon=True)
    thread.start()
    try:
        yield served
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


class _QuietHandler(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        pass


def _app(served: Server) -> Flask:
    app = Flask("kfp")
    _add_routes(app, served.backend)

    @app.before_request
    def _meet() -> Response | None:
        asked = f"{request.method} {request.path}"
        served.requests.append(asked)
        time.sleep(served.latency_s)
        request.environ["accident"] = kind = served.accident(asked)
        if kind == "login":
            return Response(_LOGIN, content_type="text/html")
        if kind.isdigit():
            return _proxy_error(int(kind))
        if served.token and request.headers.get("Authorization") != f"Bearer {served.token}":
            shown = "Failed to check authorization. User identity is empty in the request header"
            return _refused(Refusal(Code.UNAUTHENTICATED, f"Unauthenticated: {shown}", shown))
        return None

    @app.after_request
    def _cut(response: Response) -> Response:
        if request.environ["accident"] == "cut":
            request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return response

    app.register_error_handler(Refusal, _refused)
    app.wsgi_app = _behind_kubernetes(app.wsgi_app)  # type: ignore[method-assign]
    return app


def _behind_kubernetes(wsgi: Callable[..., Any]) -> Callable[..., Any]:
    """Also where a kubeconfig leads KFP's client: Kubernetes' proxy of a service."""

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix(_PROXY)
        return wsgi(environ, start)

    return answer


def _refused(error: Refusal) -> Response:
    check_answer("GoogleRpcStatus", {**error.body, "details": []})
    return Response(json.dumps(error.body), error.status, content_type="application/json")


def _proxy_error(status: int) -> Response:
    """An answer of what stands before the API: Istio, nginx, oauth2-proxy."""
    return Response("upstream connect error", status, content_type="text/plain")


def _add_routes(app: Flask, backend: Backend) -> None:
    _add_pipelines(app, backend)
    _add_uploads(app, backend)
    _add_runs(app, backend)
    _add_recurring(app, backend)

    @_route(app, "GET", "/healthz", "V2beta1GetHealthzResponse")
    def health() -> Json:
        return {"multi_user": True} if backend.namespaces else {}

    @_route(app, "POST", "/experiments", "V2beta1Experiment")
    def create_experiment() -> Json:
        return backend.create_experiment(_body("V2beta1Experiment"))

    @_route(app, "GET", "/experiments", "V2beta1ListExperimentsResponse")
    def list_experiments() -> Json:
        namespace = backend.namespace(request.args.get("namespace"))
        rows = [one for one in backend.experiments if one.get("namespace", "") == namespace]
        return _page("experiments", rows, "experiment_id")

    @_route(app, "GET", "/experiments/<experiment_id>", "V2beta1Experiment")
    def get_experiment(experiment_id: str) -> Json:
        return backend.experiment(experiment_id)


def _add_pipelines(app: Flask, backend: Backend) -> None:
    @_route(app, "POST", "/pipelines", "V2beta1Pipeline")
    def create_pipeline() -> Json:
        return backend.create_pipeline(_body("V2beta1Pipeline"))

    @_route(app, "GET", "/pipelines", "V2beta1ListPipelinesResponse")
    def list_pipelines() -> Json:
        return _page("pipelines", backend.pipelines, "pipeline_id")

    @_route(app, "GET", "/pipelines/names/<name>", "V2beta1Pipeline")
    def get_by_name(name: str) -> Json:
        namespace = request.args.get("namespace")
        return backend.pipeline_named(name, backend.namespace(namespace) if namespace else "")

    @_route(app, "GET", "/pipelines/<pipeline_id>/versions", "V2beta1ListPipelineVersionsResponse")
    def list_versions(pipeline_id: str) -> Json:
        rows = backend.versions_of(pipeline_id)
        return _page("pipeline_versions", rows, "pipeline_version_id")

    @_route(app, "GET", "/pipelines/<_>/versions/<version_id>", "V2beta1PipelineVersion")
    def get_version(_: str, version_id: str) -> Json:
        return backend.version(version_id)


def _add_uploads(app: Flask, backend: Backend) -> None:
    """server/pipeline_upload_server.go, which answers errors in a form of its own."""

    @_route(app, "POST", "/pipelines/upload_version", "V2beta1PipelineVersion")
    def upload_version() -> Json | Response:
        package = request.files["uploadfile"]
        name = request.args.get("name") or package.filename or ""
        text = package.read().decode()
        try:
            return backend.create_version(request.args["pipelineid"], name, text)
        except Refusal as error:
            hidden = error.code in (Code.ALREADY_EXISTS, Code.NOT_FOUND)
            shown = "Failed to create a pipeline version" if hidden else error.shown
            status = 400 if error.code is Code.NOT_FOUND else error.status
            body = json.dumps({"error_message": shown, "error_details": shown})
            return Response(body, status, content_type="application/json")


def _add_runs(app: Flask, backend: Backend) -> None:
    @_route(app, "POST", "/runs", "V2beta1Run")
    def create_run() -> Json:
        return backend.create_run(_body("V2beta1Run"))

    @_route(app, "GET", "/runs/<run_id>", "V2beta1Run")
    def get_run(run_id: str) -> Json:
        return backend.get_run(run_id)

    @_route(app, "POST", "/runs/<run_id>:terminate", None)
    def terminate(run_id: str) -> Json:
        return backend.terminate(run_id)


def _add_recurring(app: Flask, backend: Backend) -> None:
    @_route(app, "POST", "/recurringruns", "V2beta1RecurringRun")
    def create() -> Json:
        return backend.create_recurring(_body("V2beta1RecurringRun"))

    @_route(app, "GET", "/recurringruns", "V2beta1ListRecurringRunsResponse")
    def list_recurring() -> Json:
        experiment = request.args.get("experiment_id")
        if experiment:
            rows = [one for one in backend.recurring if one["experiment_id"] == experiment]
        else:
            namespace = backend.namespace(request.args.get("namespace"))
            rows = [one for one in backend.recurring if one.get("namespace", "") == namespace]
        return _page("recurringRuns", rows, "recurring_run_id")

    @_route(app, "POST", "/recurringruns/<job>:enable", None)
    def enable(job: str) -> Json:
        return backend.switch(job, True)

    @_route(app, "POST", "/recurringruns/<job>:disable", None)
    def disable(job: str) -> Json:
        return backend.switch(job, False)

    @_route(app, "GET", "/recurringruns/<job>", "V2beta1RecurringRun")
    def get(job: str) -> Json:
        return backend.job(job)

    @_route(app, "DELETE", "/recurringruns/<job>", None)
    def delete(job: str) -> Json:
        policy = request.args.get("propagation_policy", "")
        return backend.delete_recurring(job, policy)


def _route(app: Flask, method: str, path: str, model: str | None) -> Callable[..., Any]:
    """Serves a function's JSON, compared with a model where there is one."""

    def decorate(function: Callable[..., Json | Response]) -> Callable[..., Any]:
        def view(**values: str) -> Response:
            answer = function(**values)
            if isinstance(answer, Response):
                return answer
            if model:
                check_answer(model, answer)
            return Response(json.dumps(answer), content_type="application/json")

        endpoint = f"{method} {path}"
        app.add_url_rule(_V2 + path, endpoint, view, methods=[method])
        return function

    return decorate


def _body(model: str) -> Json:
    body: Json = json.loads(request.get_data() or b"{}")
    check_request(model, body)
    return body


def _page(key: str, rows: list[Json], id_key: str) -> Json:
    """list/list.go: pages of 20 if nothing else is asked, and how to get the next."""
    found = matching(rows, request.args.get("filter", ""), id_key)
    begin = int(request.args.get("page_token") or 0)
    end = begin + (int(request.args.get("page_size") or 0) or 20)
    page = {key: found[begin:end], "total_size": len(found)}
    page = {name: value for name, value in page.items() if value}
    return page | ({"next_page_token": str(end)} if end < len(found) else {})

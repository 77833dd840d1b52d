"""So much of a Kubernetes API server as a step that follows a group speaks to.

It keeps objects and answers with the statuses of the real one; nothing acts on them. What a real
one does with a group is in tests/cluster/test_pod_groups.py.
"""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

PATHS = {
    "/api/v1": ("pods", "services", "events"),
    "/apis/batch/v1": ("jobs",),
    "/apis/trainer.kubeflow.org/v1alpha1": ("trainjobs", "trainingruntimes"),
}


class ApiServer:
    """Objects by kind and name, in one namespace.

    Attributes:
        objects: Plural kind -> name -> object.
        logs: Pod -> text.
        refusals: (verb, plural kind) -> status and message of the next answers.
        requests: (verb, plural kind, name) in the order of their coming.
        url: Where it answers.
    """

    def __init__(self):
        self.objects = {kind: {} for kinds in PATHS.values() for kind in kinds}
        self.logs = {}
        self.refusals = {}
        self.requests = []
        self._uids = iter(range(1, 1000))

    @contextlib.contextmanager
    def running(self):
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()

    def answer(self, method, path, query, body):
        prefix = next(prefix for prefix in PATHS if path.startswith(prefix))
        _, namespace, kind, *rest = path.removeprefix(f"{prefix}/").split("/")
        assert namespace == "brainseg"
        name = rest[0] if rest else None
        verb = _verb(method, name)
        self.requests.append((verb, kind, name or (body or {}).get("metadata", {}).get("name")))
        if (verb, kind) in self.refusals:
            status, message = self.refusals[verb, kind]
            return status, {"kind": "Status", "message": message}
        if rest[1:] == ["log"]:
            return 200, self.logs.get(name, "")
        return getattr(self, f"_{verb}")(kind, name, body, query)

    def _list(self, kind, _, __, query):
        items = list(self.objects[kind].values())
        selector = query.get("labelSelector", [""])[0]
        if selector:
            key, value = selector.split("=")
            items = [each for each in items if each["metadata"]["labels"].get(key) == value]
        return 200, {"kind": "List", "items": items}

    def _get(self, kind, name, *_):
        found = self.objects[kind].get(name)
        return (200, found) if found else _missing(kind, name)

    def _create(self, kind, _, body, __):
        name = body["metadata"]["name"]
        if name in self.objects[kind]:
            return 409, {"message": f'{kind} "{name}" already exists'}
        body["metadata"]["uid"] = f"uid-{next(self._uids)}"
        body["metadata"]["namespace"] = "brainseg"
        self.objects[kind][name] = body
        return 201, body

    def _patch(self, kind, name, operations, _):
        found = self.objects[kind].get(name)
        if not found:
            return _missing(kind, name)
        for each in operations:
            _apply(found, each)
        return 200, found

    def _delete(self, kind, name, *_):
        if self.objects[kind].pop(name, None) is None:
            return _missing(kind, name)
        return 200, {"kind": "Status", "status": "Success"}


def _verb(method, name):
    verbs = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}
    return verbs.get(method) or ("get" if name else "list")


def _missing(kind, name):
    return 404, {"message": f'{kind} "{name}" not found'}


def _apply(found, operation):
    *parents, last = operation["path"].strip("/").split("/")
    place = found
    for key in parents:
        place = place[key]
    if last == "-":
        place.append(operation["value"])
    else:
        assert operation["op"] == "replace"
        assert last in place
        place[last] = operation["value"]


def _handler(api):
    class Handler(BaseHTTPRequestHandler):
        def _answer(self):
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            if self.command == "PATCH":
                assert self.headers["Content-Type"] == "application/json-patch+json"
            url = urlparse(self.path)
            status, found = api.answer(self.command, url.path, parse_qs(url.query), body)
            text = found if isinstance(found, str) else json.dumps(found)
            self.send_response(status)
            self.send_header(
                "Content-Type", "text/plain" if isinstance(found, str) else "application/json"
            )
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_PATCH = do_DELETE = _answer  # names of http.server

        def log_message(self, *_):
            pass

    return Handler

"""A proxy in front of an MLflow server that refuses what a test says."""

import http.client
import http.server
import threading
from contextlib import contextmanager
from urllib.parse import urlsplit


class Proxy:
    """Passes requests on, unless one of `refusals` matches.

    Attributes:
        uri: Address of the proxy.
        refusals: (method, part of the path, status) of requests that it answers itself.
        seen: (method, path) of all requests.
    """

    def __init__(self, uri):
        self.uri, self.refusals, self.seen = uri, [], []

    def refuse(self, method, part, status):
        self.refusals.append((method, part, status))

    def status_for(self, method, path):
        self.seen.append((method, path))
        found = (code for name, part, code in self.refusals if name == method and part in path)
        return next(found, None)


@contextmanager
def mlflow_proxy(server_uri):
    """Runs a proxy on a free port of loopback."""
    upstream = urlsplit(server_uri).netloc

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            body = self._body()
            status = proxy.status_for(self.command, self.path)
            if status:
                page = b"{}" if status == 200 else b"<title>an answer of the proxy</title>"
                answered = status, "text/html", page
            else:
                answered = self._forward(body)
            status, kind, content = answered
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _body(self):
            if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline().strip() or b"0", 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _forward(self, body):
            connection = http.client.HTTPConnection(upstream, timeout=60)
            kind = self.headers.get("Content-Type") or "application/json"
            connection.request(self.command, self.path, body, {"Content-Type": kind})
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type") or kind, answer.read()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        proxy = Proxy(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield proxy
        server.shutdown()

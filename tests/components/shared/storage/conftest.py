import http.server
import ssl
import threading

import pytest


@pytest.fixture
def seen():
    """The headers of the requests to web servers."""
    return []


@pytest.fixture
def web_server(seen):
    """Starts web servers that always give one answer, with https where given a certificate."""
    servers = []

    def start(certificate=None, answer=(404, "text/html", b"<html>Not here</html>"), **headers):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page)
        server.answer, server.headers, server.seen = answer, headers, seen
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


class _Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        self.server.seen.append(self.headers)
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        status, kind, body = self.server.answer
        self.send_response(status)
        for name, value in {"Content-Type": kind, **self.server.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_DELETE = answer

    def log_message(self, *_):
        pass

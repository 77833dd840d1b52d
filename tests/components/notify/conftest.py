"""A webhook: a real server that keeps what it is sent and answers as configured."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Webhook:
    """`answers` are given one after the other, the last one again and again."""

    def __init__(self):
        self.answers, self.received, self.kinds, self.delay = [200], [], [], threading.Event()
        self.waits = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.received.append(json.loads(body))
                outer.kinds.append(self.headers["Content-Type"])
                if outer.waits:
                    outer.delay.wait(20)
                    return
                status = outer.answers[0]
                outer.answers = outer.answers[1:] or outer.answers
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/services/T0/B0/{SECRET}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.delay.set()
        self.server.shutdown()
        self.server.server_close()


SECRET = "n0b0dy-may-read-th1s"


@pytest.fixture
def webhook(monkeypatch):
    monkeypatch.setattr("components.notify.webhook._PAUSE_S", 0.01)
    opened = Webhook()
    yield opened
    opened.close()

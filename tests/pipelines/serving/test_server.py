"""The server as a process, and hostile connections."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.pipelines.serving.conftest import NAME

CODE = """
import sys
from pathlib import Path
from pipelines.serving import loaded
from pipelines.serving.server import serve
from pipelines.serving.settings import ServeSettings

if __name__ == "__main__":
    alias, port = sys.argv[1:]
    loaded.resolve_model = lambda *_: Path(alias).read_text()
    settings = ServeSettings(
        device="cpu", poll_s=0.1, read_timeout_s=2, max_connections=100, max_requests=4
    )
    serve("champion", "127.0.0.1", int(port), settings)
"""


@pytest.fixture
def process(folder, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    alias, script = tmp_path / "alias", tmp_path / "served.py"
    alias.write_text(str(folder))
    script.write_text(CODE)
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, str(script), str(alias), str(port)]
    with subprocess.Popen(command, env=environment) as process:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        yield process, port, alias
        process.kill()


def send(port, content=None, path="/predict"):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", content)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def memory_kib(pid):
    with open(f"/proc/{pid}/status") as stream:
        return next(int(line.split()[1]) for line in stream if line.startswith("VmRSS"))


@pytest.mark.slow
def test_a_server_lives_and_ends(process, zipped, folder, tmp_path):
    server, port, alias = process
    first, mask = send(port, zipped)
    assert first == 200
    assert NAME.encode() not in mask
    before = memory_kib(server.pid)

    # a thousand connections that send nothing: most are refused, the others are closed in time
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(1000)]
    time.sleep(4)
    assert send(port, zipped) == (200, mask)
    for connection in idle:
        connection.close()
    drip = socket.create_connection(("127.0.0.1", port))
    drip.sendall(b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nx")
    half = socket.create_connection(("127.0.0.1", port))
    half.sendall(b"POST /predict HTTP/1.1\r\nhost:")
    assert b" 408 " in drip.recv(1000)
    assert half.recv(1000) == b""
    huge = socket.create_connection(("127.0.0.1", port))
    huge.sendall(b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-length: 10737418240\r\n\r\n")
    assert b" 413 " in huge.recv(1000)
    assert send(port, b"garbage")[0] == 422
    assert memory_kib(server.pid) < before + 100 * 1024

    # the alias moves under load: no request fails
    second = tmp_path / "second"
    second.symlink_to(folder)
    codes, stop = [], threading.Event()

    def load():
        while not stop.is_set():
            codes.append(send(port, zipped)[0])

    clients = [threading.Thread(target=load) for _ in range(3)]
    for client in clients:
        client.start()
    alias.write_text(str(second))
    deadline = time.monotonic() + 60
    while b"swaps_total 1" not in send(port, path="/metrics")[1]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    stop.set()
    for client in clients:
        client.join()
    assert set(codes) == {200}

    # SIGTERM: a request that has begun is answered
    last = socket.create_connection(("127.0.0.1", port))
    last.sendall(
        b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(zipped)
        + zipped[:-10]
    )
    time.sleep(0.5)
    server.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    last.sendall(zipped[-10:])
    assert b" 200 " in last.recv(1000)
    server.wait(20)

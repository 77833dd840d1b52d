import http.server
import json
import os
import subprocess
import sys
import threading
from importlib import metadata
from pathlib import Path

import pytest

from pipelines import cli

TINY_TRAINING = (
    "train.network.image_size=32",
    "train.network.encoder_depth=3",
    "train.network.decoder_channels=[16,8,8]",
    "train.schedule.epochs=1",
    "train.schedule.validate_every_epochs=1",
    "train.compute.threads=1",  # without looking for the fastest
    "profile.montage_volumes=0",
    "evaluate.overlay_volumes=1",
)
"""Changes of a preset for whole runs in tests."""


@pytest.fixture(scope="session")
def brainseg():
    """Runs the command as a user does, in a folder of its own and without foreign settings."""

    def run(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments),
            cwd=cwd,
            env=clean_environment(**variables),
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def command(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("brainseg")), *arguments]


def clean_environment(**variables: str) -> dict[str, str]:
    foreign = ("MLFLOW_", "KFP_", "BRAINSEG_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, **variables}


@pytest.fixture
def requires(monkeypatch):
    """Gives the distribution other requirements than its own."""
    return lambda *lines: monkeypatch.setattr(metadata, "requires", lambda name: list(lines))


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Calls the command in this process; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "_use_local_defaults", lambda: None)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["brainseg", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        code = stopped.value.code
        # sys.exit("text") prints the text on its way out of the interpreter
        error = captured.err + (code if isinstance(code, str) else "")
        return (1 if isinstance(code, str) else code), captured.out, error

    return run


@pytest.fixture
def server():
    """Starts a web server that answers everything alike."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            start.headers = self.headers
            self.send_response(self.server.code)
            self.end_headers()
            self.wfile.write(json.dumps(self.server.answer).encode())

        do_POST = do_GET

        def log_message(self, *_):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()

    def start(code, answer):
        running.code, running.answer = code, answer
        return start.uri

    start.uri = f"http://127.0.0.1:{running.server_port}"
    yield start
    running.shutdown()
    running.server_close()

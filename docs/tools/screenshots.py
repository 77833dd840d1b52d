"""Takes the pictures of reports and of MLflow in docs/images, from runs on synthetic volumes.

    python docs/tools/screenshots.py [--run FOLDER]

Needs Chromium (Debian: `apt-get install chromium`). `--run` takes the output folder of an
existing run in place of two new ones, which take some minutes.
Look at every picture before a commit.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

PROJECT = Path(__file__).parents[2]
IMAGES = PROJECT / "docs" / "images"
COLORS = 128  # of a picture: a quarter of the bytes, and no difference to the eye
WIDTH, PANEL = 1440, 460
LOADING_MS = 60_000  # by the clock of the page, which skips idle time
WAIT_S = 90.0


def main() -> None:
    """Runs the pipeline if no run is given, and takes all pictures."""
    parser = argparse.ArgumentParser(description="Take the pictures of docs/images.")
    parser.add_argument("--run", type=Path, help="Output folder of a run of preset demo.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="brainseg-screenshots-") as scratch:
        folder = options.run or _run(Path(scratch))
        result = json.loads((folder / "result.json").read_text("utf-8"))
        for name, height in (("evaluation", 1500), ("decision", 1100)):
            page = next(folder.rglob(f"{name}.html")).absolute().as_uri()
            take(page, name, Path(scratch), height)
        with _mlflow(result["tracking_uri"]) as address:
            runs = f"{address}/#/experiments/{result['experiment_id']}/runs"
            take(f"{runs}?{_view()}", "mlflow", Path(scratch), 620, panel=True)
            run = f"{runs}/{result['mlflow_run_id']}?workflowType=machine_learning"
            take(run, "mlflow-run", Path(scratch), 1000, panel=True)


def take(address: str, name: str, scratch: Path, height: int, *, panel: bool = False) -> None:
    """Takes one picture.

    Args:
        address: Page to open.
        name: Name of the picture in docs/images.
        scratch: Folder for Chromium's profile.
        height: Height in pixels.
        panel: True to cut off the panel on the right of MLflow's page.
    """
    file = IMAGES / f"{name}.png"
    browser = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [
        f"--user-data-dir={scratch / 'browser'}",
        f"--window-size={WIDTH + panel * PANEL},{height}",
    ]
    command += [f"--virtual-time-budget={LOADING_MS}", f"--screenshot={file}", address]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    with Image.open(file) as picture:
        small = picture.convert("RGB").crop((0, 0, WIDTH, height)).quantize(COLORS)
    small.save(file, optimize=True)
    sys.stdout.write(f"{file.relative_to(PROJECT)}: {file.stat().st_size / 1e3:.0f} kB\n")


def _run(scratch: Path) -> Path:
    """Runs the pipeline twice, so that the second model is compared with a champion."""
    code = "from pipelines.cli import main; main()"
    for seed in ("0", "1"):
        output = scratch / f"run{seed}"
        command = [sys.executable, "-c", code, "run", "--source", "synthetic:24"]
        command += ["--preset", "demo", "--set", f"train.seed={seed}", "--output", str(output)]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        subprocess.run(command, cwd=scratch, env=environment, check=True)
    return output


@contextmanager
def _mlflow(tracking_uri: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", tracking_uri]
    command += ["--port", str(port), "--workers", "1"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        _await(f"{address}/health")
        yield address
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)


def _await(address: str) -> None:
    end = time.monotonic() + WAIT_S
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(1)


def _view() -> str:
    sys.path.insert(0, str(PROJECT))
    from components.shared.tracking.view import VIEW

    return f"workflowType=machine_learning&viewStateShareKey={VIEW}"


if __name__ == "__main__":
    main()

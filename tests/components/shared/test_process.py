import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import components
from components.shared.process import MISTAKE_STATUS, OUTAGE_STATUS, importing

PROJECT = Path(components.__file__).parents[1]

STEP = """
import logging, sys
from pathlib import Path
from components.shared import process
from components.shared.errors import OutageError, UserError
process._TERMINATION_LOG = Path(sys.argv[1])
name = "scan\\nbrainseg error: all is lost \\x1b[2J\\x9b31m\\u202e\\r"
with process.step_process("ingest"):
    logging.getLogger("components.ingest").warning("quarantined %s: %s", name, "reason")
    try:
        raise ValueError(name)
    except ValueError:
        logging.getLogger("components.ingest").exception("the failure is logged")
    raise {kind}(name)
"""
SHOWN = r"scan\nbrainseg error: all is lost \x1b[2J\x9b31m\u202e\r"


STATUS = {"UserError": MISTAKE_STATUS, "OutageError": OUTAGE_STATUS, "RuntimeError": 1}


def start(tmp_path, script, **variables):
    return subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "termination")],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def run(tmp_path, kind):
    done = start(tmp_path, STEP.format(kind=kind))
    assert done.returncode == STATUS[kind]
    assert not set(done.stderr) & set("\x1b\x9b\u202e\r")
    return done.stderr.splitlines()


def test_a_record_is_one_line_and_a_traceback_stays_readable(tmp_path):
    lines = run(tmp_path, "UserError")
    assert lines[0] == f"ingest: quarantined {SHOWN}: reason"
    assert lines[1:3] == ["ingest: the failure is logged", "Traceback (most recent call last):"]
    assert lines[3] == '    File "<string>", line 11, in <module>'
    assert lines[-3:-1] == [
        "  ValueError: scan",
        r"  brainseg error: all is lost \x1b[2J\x9b31m\u202e\r",
    ]


@pytest.mark.parametrize(("kind", "word"), [("UserError", "error"), ("OutageError", "outage")])
def test_an_error_is_one_line_here_and_in_kubernetes(tmp_path, kind, word):
    (tmp_path / "termination").touch()
    *_, line = run(tmp_path, kind)
    message = r"scan brainseg error: all is lost \x1b[2J\x9b31m\u202e"
    assert line == f"brainseg error: {message}"
    assert (tmp_path / "termination").read_text() == f"brainseg {word}: {message}"


def test_the_reason_of_a_crash_is_left_too_and_passes_for_no_mistake(tmp_path):
    (tmp_path / "termination").touch()
    run(tmp_path, "RuntimeError")
    message = r"RuntimeError: scan brainseg error: all is lost \x1b[2J\x9b31m\u202e"
    assert (tmp_path / "termination").read_text() == message


def test_of_a_crash_caused_by_another_both_ends_are_left(tmp_path):
    (tmp_path / "termination").touch()
    text = "('Caught in a worker.\\nTraceback:\\n  File x\\nRuntimeError: no space left')"
    start(tmp_path, STEP.format(kind="RuntimeError").replace("(name)", text))
    left = (tmp_path / "termination").read_text()
    assert left == "RuntimeError: Caught in a worker. ... RuntimeError: no space left"


def test_of_a_long_reason_kubernetes_gets_the_begin(tmp_path):
    (tmp_path / "termination").touch()
    start(tmp_path, STEP.format(kind="UserError").replace("(name)", "('\u00fc' * 5000)"))
    left = (tmp_path / "termination").read_bytes()
    assert 4000 < len(left) <= 4096
    assert left.decode().startswith("brainseg error: \u00fc")


def test_a_step_has_the_settings_that_are_meant_for_it_and_not_for_the_launcher(tmp_path):
    script = """
import os
from components.shared.process import step_process
with step_process("ingest"):
    print(os.environ["AWS_ENDPOINT_URL"])
"""
    variables = {"AWS_ENDPOINT_URL": "theirs", "BRAINSEG_AWS_ENDPOINT_URL": "ours"}
    assert start(tmp_path, script, **variables).stdout == "ours\n"


def test_settings_that_cannot_be_read_are_reported(tmp_path):
    done = start(tmp_path, STEP.format(kind="UserError"), KFP_MLFLOW_CONFIG="{")
    assert done.returncode == MISTAKE_STATUS
    assert done.stderr.startswith("brainseg error: KFP_MLFLOW_CONFIG is '{', not the JSON of")


def test_a_crash_cannot_pass_for_an_error(tmp_path):
    lines = run(tmp_path, "RuntimeError")
    assert lines[-2] == "  RuntimeError: scan"
    assert not [line for line in lines if line.startswith("brainseg error")]


@pytest.mark.parametrize("kind", STATUS)
def test_the_termination_log_exists_in_kubernetes_only(tmp_path, kind):
    run(tmp_path, kind)
    assert not (tmp_path / "termination").exists()


def test_one_of_several_tasks_says_which_in_every_line_and_in_its_reason(tmp_path):
    (tmp_path / "termination").touch()
    labelled = STEP.replace('step_process("ingest")', 'step_process("train", "fold-1 100%")')
    lines = start(tmp_path, labelled.format(kind="UserError")).stderr.splitlines()
    assert lines[0] == f"train: fold-1 100%: quarantined {SHOWN}: reason"
    assert lines[-1].startswith("brainseg error: fold-1 100%: scan")
    assert (tmp_path / "termination").read_text().startswith("brainseg error: fold-1 100%: scan")


def test_the_garbage_collector_rests_while_modules_are_imported():
    with pytest.raises(ImportError), importing():
        import components.no_such_module  # noqa: F401
    assert gc.isenabled()
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()  # as someone else wants it
    try:
        with importing():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_collections_afterwards_leave_out_what_was_imported(tmp_path, monkeypatch):
    """One of them took half a second, with torch and MLflow there."""
    (tmp_path / "brainseg_fresh.py").write_text("content = [[] for _ in range(1000)]")
    monkeypatch.syspath_prepend(tmp_path)
    before = gc.get_freeze_count()
    with importing():
        import brainseg_fresh
    frozen = gc.get_freeze_count()
    assert frozen >= before + len(brainseg_fresh.content)
    with importing():
        import brainseg_fresh
    assert gc.get_freeze_count() == frozen


def test_a_step_that_has_imported_torch_ends_in_silence(tmp_path):
    """Triton fills forty lines with what was not freed at the end."""
    script = """
from components.shared.process import importing
with importing():
    import torch._dynamo
assert "triton._C.libtriton" in __import__("sys").modules
"""
    assert start(tmp_path, script).stderr == ""


LAUNCHED = """
import signal, sys, time
from components.shared import process
process._GRACE_S = 2.0 if sys.argv[2] == "goes on" else 60.0
def store(*_):
    open(sys.argv[1] + "/stored", "w").close()
    if sys.argv[2] == "stores":
        sys.exit(0)
with process.step_process("train"):
    if sys.argv[2] != "knows nothing":
        signal.signal(signal.SIGTERM, store)
    print("ready", flush=True)
    while True:
        time.sleep(0.05)
"""


@pytest.mark.parametrize(
    ("how", "status"), [("stores", 0), ("goes on", 1), ("knows nothing", -signal.SIGTERM)]
)
def test_a_step_whose_launcher_has_ended_is_terminated_and_then_killed(tmp_path, how, status):
    step = subprocess.Popen(
        [sys.executable, "-c", LAUNCHED, str(tmp_path), how],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "BRAINSEG_EXIT_WITH_LAUNCHER": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert step.stdout.readline() == b"ready\n"
    step.send_signal(signal.SIGINT)  # Ctrl-C reaches all; the launcher's end is what counts
    with pytest.raises(subprocess.TimeoutExpired):
        step.wait(0.3)
    step.stdout.close()
    assert step.wait(20) == status
    assert (tmp_path / "stored").exists() is (how != "knows nothing")

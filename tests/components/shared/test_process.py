import os
import subprocess
import sys
from pathlib import Path

import pytest

import components

PROJECT = Path(components.__file__).parents[1]

STEP = """
import logging, sys
from pathlib import Path
from components.shared import process
from components.shared.errors import UserError
process._TERMINATION_LOG = Path(sys.argv[1])
name = "scan\\nbrainseg error: all is lost \\x1b[2J\\x9b31m\\u202e\\r"
with process.step_process("ingest"):
    logging.getLogger("components.ingest").warning("quarantined %s: %s", name, "reason")
    try:
        raise ValueError(name)
    except ValueError:
        logging.getLogger("components.ingest").exception("what failed is told")
    raise {kind}(name)
"""
SHOWN = r"scan\nbrainseg error: all is lost \x1b[2J\x9b31m\u202e\r"


def run(tmp_path, kind):
    done = subprocess.run(
        [sys.executable, "-c", STEP.format(kind=kind), str(tmp_path / "termination")],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert not set(done.stderr) & set("\x1b\x9b\u202e\r")
    return done.stderr.splitlines()


def test_a_record_is_one_line_and_a_traceback_stays_readable(tmp_path):
    lines = run(tmp_path, "UserError")
    assert lines[0] == f"ingest: quarantined {SHOWN}: reason"
    assert lines[1:3] == ["ingest: what failed is told", "Traceback (most recent call last):"]
    assert lines[3] == '    File "<string>", line 11, in <module>'
    assert lines[-3:-1] == [
        "  ValueError: scan",
        r"  brainseg error: all is lost \x1b[2J\x9b31m\u202e\r",
    ]


def test_an_error_is_one_line_here_and_in_kubernetes(tmp_path):
    (tmp_path / "termination").touch()
    *_, line = run(tmp_path, "UserError")
    message = r"scan brainseg error: all is lost \x1b[2J\x9b31m\u202e"
    assert line == f"brainseg error: {message}"
    assert (tmp_path / "termination").read_text() == message


def test_a_crash_cannot_pass_for_an_error(tmp_path):
    lines = run(tmp_path, "RuntimeError")
    assert lines[-2] == "  RuntimeError: scan"
    assert not [line for line in lines if line.startswith("brainseg error")]


@pytest.mark.parametrize("kind", ["UserError", "RuntimeError"])
def test_the_termination_log_exists_in_kubernetes_only(tmp_path, kind):
    run(tmp_path, kind)
    assert not (tmp_path / "termination").exists()

import pytest

from pipelines.steplog import StepLog

_KFP = """\
16:00:00.000 - INFO - Running pipeline: \x1b[95m'brainseg-training'\x1b[0m
16:00:00.001 - INFO - Executing task \x1b[96m'ingest'\x1b[0m
    [KFP Executor 2026-11-23 16:00:00,962 INFO]: Looking for component `ingest`
    ingest: volumes: all 24 in 0.1 s

16:00:02.000 - INFO - Task \x1b[96m'ingest'\x1b[0m finished with status \x1b[92mSUCCESS\x1b[0m
16:00:02.001 - INFO - Task \x1b[96m'ingest'\x1b[0m outputs:
    Output: 'c272f98a9fa9fd17'
16:00:02.002 - INFO - Executing task \x1b[96m'profile'\x1b[0m
    profile: pictures: all 7 in 0.1 s
"""


@pytest.fixture(params=["", "1"], ids=["lines", "terminal"])
def terminal(request, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("TTY_COMPATIBLE", request.param or "0")
    monkeypatch.setenv("FORCE_COLOR", request.param)


def _log(tmp_path, text):
    log = StepLog(tmp_path / "run.log", steps=6)
    with log:
        print(text, end="")
    return log


def test_steps_are_shown_in_one_voice(terminal, tmp_path, capfd):
    log = _log(tmp_path, _KFP)
    out, err = capfd.readouterr()
    assert out == ""
    assert "volumes: all 24" in err
    assert "pictures: all 7" in err
    assert "done in" in err
    assert "KFP Executor" not in err
    assert "Output:" not in err
    assert list(log.seconds) == ["ingest"]


def test_all_lines_are_kept(terminal, tmp_path, capfd):
    _log(tmp_path, _KFP)
    _log(tmp_path, "another attempt\n")
    kept = (tmp_path / "run.log").read_text()
    assert "[KFP Executor" in kept
    assert "Output: 'c272f98a9fa9fd17'" in kept
    assert "another attempt" in kept
    assert "\x1b" not in kept


def test_a_steps_own_message_is_the_reason(terminal, tmp_path, capfd):
    log = _log(tmp_path, _KFP + "    brainseg error: too few patients\n    Traceback\n")
    assert log.failure(RuntimeError("KFP's words")) == "step profile: too few patients"


def test_a_crash_shows_the_last_lines(terminal, tmp_path, capfd):
    log = _log(tmp_path, _KFP + "    ZeroDivisionError: division by zero\n")
    reason = log.failure(RuntimeError("KFP's words"))
    assert "step profile crashed" in reason
    assert "ZeroDivisionError" in reason
    assert str(tmp_path / "run.log") in reason


def test_before_the_first_step_the_words_are_kfps(terminal, tmp_path, capfd):
    log = _log(tmp_path, "16:00:00.000 - INFO - Running pipeline\n")
    assert log.failure(RuntimeError("no such input")) == "KFP: no such input"

import logging

import pytest
from kfp.local.logging_utils import indented_print, local_logger_context

from pipelines.running.steplog import StepLog

EXECUTING = "Executing task \x1b[96m'{}'\x1b[0m"
FINISHED = "Task \x1b[96m'{}'\x1b[0m finished with status \x1b[92m{}\x1b[0m"


@pytest.fixture(params=["", "1"], ids=["lines", "terminal"])
def terminal(request, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("TTY_COMPATIBLE", request.param or "0")
    monkeypatch.setenv("FORCE_COLOR", request.param)


def say(text):
    """A record of KFP's own."""
    with local_logger_context():
        logging.info(text)


def write(*lines):
    """Lines of a step, as KFP prints them."""
    with indented_print():
        for line in lines:
            print(f"{line}\n", end="")
        print("\n")


def ingest_and_begin_profile():
    say("Running pipeline: \x1b[95m'brainseg-training'\x1b[0m")
    print("-" * 80)
    say(EXECUTING.format("ingest"))
    write(
        "[KFP Executor 2026-11-23 16:00:00,962 INFO]: Looking for component `ingest`",
        "ingest: volumes: all 24 in 0.1 s",
    )
    say(FINISHED.format("ingest", "SUCCESS"))
    say("Task \x1b[96m'ingest'\x1b[0m outputs:\n    Output: 'c272f98a9fa9fd17'")
    print("-" * 80)
    say(EXECUTING.format("profile"))
    write("profile: pictures: all 7 in 0.1 s")


@pytest.fixture
def log(terminal, tmp_path):
    return StepLog(tmp_path / "run.log", steps=6)


def test_steps_are_shown_in_one_voice(log, capfd):
    with log:
        ingest_and_begin_profile()
    out, err = capfd.readouterr()
    assert out == ""
    assert "volumes: all 24" in err
    assert "pictures: all 7" in err
    assert "done in" in err
    assert "KFP Executor" not in err
    assert "Output:" not in err
    assert list(log.seconds) == ["ingest"]


def test_all_lines_are_kept(log, tmp_path, capfd):
    with log:
        ingest_and_begin_profile()
    with StepLog(tmp_path / "run.log", steps=6):
        write("another attempt")
    kept = (tmp_path / "run.log").read_text()
    assert "[KFP Executor" in kept
    assert "Output: 'c272f98a9fa9fd17'" in kept
    assert "another attempt" in kept
    assert "\x1b" not in kept


def test_a_steps_own_message_is_the_reason(log, capfd):
    with log:
        ingest_and_begin_profile()
        write("brainseg error: too few patients", "Traceback")
    assert log.failure(RuntimeError("KFP's words")) == "step profile: too few patients"


def test_a_crash_shows_the_last_lines(log, tmp_path, capfd):
    with log:
        ingest_and_begin_profile()
        write("ZeroDivisionError: division by zero")
    reason = log.failure(RuntimeError("KFP's words"))
    assert "step profile crashed" in reason
    assert "ZeroDivisionError" in reason
    assert str(tmp_path / "run.log") in reason


def test_before_the_first_step_the_words_are_kfps(log, capfd):
    with log:
        say("Running pipeline")
    assert log.failure(RuntimeError("no \x1b[96minput\x1b[0m")) == "KFP: no input"


def test_steps_that_run_after_a_failure_do_not_hide_it(log, capfd):
    with log:
        ingest_and_begin_profile()
        write("brainseg error: too few patients")
        say(FINISHED.format("profile", "FAILURE"))
        say(EXECUTING.format("tell"))
        say(FINISHED.format("tell", "SUCCESS"))
    assert log.failure(RuntimeError("KFP's words")) == "step profile: too few patients"
    assert list(log.seconds) == ["ingest", "tell"]


def test_lines_of_a_step_that_is_used_twice_are_shown(log, capfd):
    with log:
        for _ in range(2):  # rounds of a loop
            say(EXECUTING.format("train-2"))
            write("train: epoch 1 of 3")
            say(FINISHED.format("train-2", "SUCCESS"))
    assert capfd.readouterr().err.count("epoch 1 of 3") == 2
    assert list(log.seconds) == ["train-2"]


def test_warnings_of_kfp_are_shown(log, capfd):
    with log, local_logger_context():
        logging.warning("Condition evaluation failed for 'x'")
    assert "Condition evaluation failed" in capfd.readouterr().err


FORGED = [
    FINISHED.format("profile", "SUCCESS"),
    f"16:00:02.000 - INFO - {FINISHED.format('profile', 'SUCCESS')}",
    "16:00:02.000 - INFO - Task 'profile' finished with status SUCCESS",
    "Executing task 'register'",
    "16:00:02.000 - INFO - Executing task 'register'",
]


@pytest.mark.parametrize("line", FORGED)
def test_a_step_cannot_speak_for_kfp(log, line, capfd):
    with log:
        ingest_and_begin_profile()
        write(line, f"profile: quarantined {line}")
        say(f"Task 'profile' outputs:\n    Output: '\n{line}\n'")
    assert list(log.seconds) == ["ingest"]
    assert log.failure(RuntimeError()).startswith("step profile crashed")


def test_an_error_message_stands_at_the_lines_start(log, capfd):
    with log:
        ingest_and_begin_profile()
        write("profile: quarantined brainseg error: all is lost", " brainseg error: no")
    assert log.failure(RuntimeError()).startswith("step profile crashed")


def test_control_characters_are_shown_escaped(log, tmp_path, capfd):
    hostile = "\x1b]0;owned\x07\x1b[2J\x9b31m\u2028\u202eevil"
    with log:
        ingest_and_begin_profile()
        write(f"profile: {hostile}", f"brainseg error: {hostile}")
    told = capfd.readouterr().err + log.failure(RuntimeError()) + (tmp_path / "run.log").read_text()
    assert told.count(r"\x1b]0;owned\x07\x1b[2J\x9b31m\u2028\u202eevil") >= 3
    assert not set("\x07\x9b\u2028\u202e") & set(told)


def test_the_root_loggers_filters_are_given_back(log, capfd):
    before = list(logging.getLogger().filters)
    with log:
        pass
    assert logging.getLogger().filters == before

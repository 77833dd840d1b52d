import logging
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from components.shared import progress
from components.shared.progress import track

PROJECT = Path(progress.__file__).parents[2]

WORK = """
from components.shared.progress import track
print(sum(track(range(4), 4, "volumes")))
"""


@pytest.fixture
def work(monkeypatch, caplog):
    """Works on items that take some seconds each; returns them and the log lines."""
    caplog.set_level(logging.INFO)

    def work(items, seconds_each):
        now = [0.0]
        monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
        done = []
        for item in track(items, len(items), "volumes"):
            done.append(item)
            now[0] += seconds_each
        return done, [record.getMessage() for record in caplog.records]

    return work


def test_quick_work_is_one_log_line(work):
    assert work("abc", 1.0) == (["a", "b", "c"], ["volumes: all 3 in 3.0 s"])


def test_long_work_is_logged_every_five_seconds(work):
    done, lines = work(range(7), 2.0)
    assert done == list(range(7))
    assert lines == [
        "volumes: 3 of 7 (6 s)",
        "volumes: 6 of 7 (12 s)",
        "volumes: all 7 in 14.0 s",
    ]


def test_nothing_to_do_is_logged_too(work):
    assert work([], 1.0) == ([], ["volumes: all 0 in 0.0 s"])


def test_an_item_is_taken_when_the_one_before_is_done():
    taken = []
    items = track((taken.append(number) or number for number in range(3)), 3, "volumes")
    next(items)
    assert taken == [0]


def test_on_a_terminal_it_is_a_bar_and_stdout_is_for_results():
    terminal, end = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", WORK],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=end,
            check=True,
        )
        os.close(end)
        reported = os.read(terminal, 100_000).decode()
    finally:
        os.close(terminal)
    assert done.stdout == b"6\n"
    assert "volumes" in reported
    assert "4/4" in reported

"""Waiting for what another program does."""

import time


def until(condition, what, timeout_s=120, pause_s=1):
    """Returns the first true answer of a function that is asked again and again."""
    end = time.monotonic() + timeout_s
    while not (answer := condition()):
        assert time.monotonic() < end, f"within {timeout_s} s: no {what}"
        time.sleep(pause_s)
    return answer

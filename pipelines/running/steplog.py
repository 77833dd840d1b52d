"""Console output of a local run: steps, their log lines and their errors.

KFP logs the state of tasks through the root logger, and prints the output of a task, indented, to
stdout. The two are read separately, so that no line of a step can pass for KFP's.
"""

import contextlib
import io
import logging
import re
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from components.shared.printable import printable
from components.shared.process import ERROR_PREFIX

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_EXECUTING = re.compile(r"Executing task '([\w-]+)'")
_FINISHED = re.compile(r"Task '([\w-]+)' finished with status (\w+)")
_INDENT = " " * 4  # of a step's lines, by KFP
_TAIL = 15  # number of last lines shown after a crash


class StepLog(contextlib.ExitStack):
    """Redirects stdout while KFP runs; shows the steps and writes every line to a file.

    On a terminal, a bar counts the finished steps; elsewhere there are plain lines only.

    Args:
        path: File for all lines.
        steps: Expected number of steps; a loop may have more.

    Attributes:
        seconds: Duration of each finished step, summed over repeated runs of it.
    """

    def __init__(self, path: Path, steps: int) -> None:
        super().__init__()
        self._path = path
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            redirect_stdout=False,  # this class redirects it
            redirect_stderr=False,
        )
        self._steps, self._finished = steps, 0
        self._bar = self._progress.add_task("starting", total=steps)
        self.seconds: dict[str, float] = {}
        self._step = ""
        self._started = 0.0
        self._error = self._failure = ""
        self._lines: deque[str] = deque(maxlen=_TAIL)

    def __enter__(self) -> Self:
        self._file = self.enter_context(open(self._path, "a"))
        self.enter_context(contextlib.redirect_stdout(_Lines(self._take_line)))
        logging.getLogger().addFilter(self._take_record)
        self.callback(logging.getLogger().removeFilter, self._take_record)
        self.enter_context(self._progress)
        return self

    def failure(self, error: RuntimeError) -> str:
        """The step's own error message, or the last lines before its crash, or KFP's error."""
        if self._failure:
            return self._failure
        return self._reason() if self._step else f"KFP: {_COLOUR.sub('', str(error))}"

    def _take_record(self, record: logging.LogRecord) -> bool:
        """Reads KFP's own records; as a filter, because KFP replaces the handlers."""
        message = _COLOUR.sub("", record.getMessage())
        self._keep(f"{time.strftime('%H:%M:%S')} - {record.levelname} - {message}")
        if started := _EXECUTING.fullmatch(message):
            self._begin(started[1])
        elif finished := _FINISHED.fullmatch(message):
            self._end(finished[2])
        elif record.levelno >= logging.WARNING:
            self._show(message)
        return False

    def _take_line(self, raw: str) -> None:
        self._keep(raw)
        line = raw.removeprefix(_INDENT)
        if not line.strip() or line == raw:  # a separator between KFP's records
            return
        self._lines.append(line)
        # KFP numbers the tasks of one component: train, train-2
        prefix = re.sub(r"(-\d+)*$", ": ", self._step, count=1)
        if line.startswith(ERROR_PREFIX):
            self._error = line.removeprefix(ERROR_PREFIX)
        elif line.startswith(prefix):
            self._show(f"  {line.removeprefix(prefix)}")

    def _begin(self, step: str) -> None:
        self._step, self._started, self._error = step, time.monotonic(), ""
        self._lines.clear()
        self._progress.update(self._bar, description=step)
        self._show(step, style="bold")

    def _end(self, status: str) -> None:
        if status != "SUCCESS":
            self._failure = self._failure or self._reason()
            return
        seconds = round(time.monotonic() - self._started, 1)
        self.seconds[self._step] = round(self.seconds.get(self._step, 0) + seconds, 1)
        self._finished += 1
        total = max(self._steps, self._finished)
        self._progress.update(self._bar, completed=self._finished, total=total)
        self._show(f"  done in {seconds} s")
        self._step = ""

    def _reason(self) -> str:
        if self._error:
            return f"step {self._step}: {printable(self._error)}"
        tail = "\n".join(map(printable, self._lines))
        return f"step {self._step} crashed; its last lines are\n{tail}\nfull log: {self._path}"

    def _keep(self, text: str) -> None:
        # Further lines of a record are output of a step, so they are indented like it.
        self._file.write(f"\n{_INDENT}".join(map(printable, text.split("\n"))) + "\n")
        self._file.flush()

    def _show(self, text: str, style: str | None = None) -> None:
        self._progress.console.print(printable(text), markup=False, style=style)


class _Lines(io.TextIOBase):
    """A text stream that passes on whole lines."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take
        self._partial = ""

    def write(self, text: str) -> int:
        *lines, self._partial = (self._partial + text).split("\n")
        for line in lines:
            self._take(line)
        return len(text)

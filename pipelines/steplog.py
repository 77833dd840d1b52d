"""What a person sees of a local run: KFP's output, reduced to one voice."""

import contextlib
import io
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from components.shared.process import ERROR_PREFIX

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_EXECUTING = re.compile(r"Executing task '([\w-]+)'")
_FINISHED = re.compile(r"Task '([\w-]+)' finished with status (\w+)")
_TAIL = 15  # last lines of a step that are shown when it crashes


class StepLog(contextlib.AbstractContextManager["StepLog"]):
    """Takes over standard output while KFP runs; shows steps, keeps every line in a file.

    On a terminal a bar counts the finished steps; elsewhere there are plain lines only.

    Args:
        path: File for all lines, as they came.
        steps: Number of steps of the pipeline.

    Attributes:
        seconds: What each finished step took.
    """

    def __init__(self, path: Path, steps: int) -> None:
        self._path = path
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            redirect_stdout=False,  # it is redirected here, to be read
            redirect_stderr=False,
        )
        self._bar = self._progress.add_task("starting", total=steps)
        self.seconds: dict[str, float] = {}
        self._step = ""
        self._started = 0.0
        self._error = ""
        self._lines: list[str] = []

    def __enter__(self) -> Self:
        self._file = open(self._path, "a")
        self._redirect = contextlib.redirect_stdout(_Lines(self._take))
        self._redirect.__enter__()
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()
        self._redirect.__exit__(kind, error, traceback)
        self._file.close()

    def failure(self, error: RuntimeError) -> str:
        """Why the run failed: the step's own message, or the last lines of its crash.

        Args:
            error: What KFP says of it.
        """
        if not self._step:
            return f"KFP: {error}"
        if self._error:
            return f"step {self._step}: {self._error}"
        tail = "\n".join(self._lines[-_TAIL:])
        return f"step {self._step} crashed; its last lines are\n{tail}\nall lines: {self._path}"

    def _take(self, raw: str) -> None:
        line = _COLOUR.sub("", raw).strip()
        self._file.write(line + "\n")
        self._file.flush()
        if started := _EXECUTING.search(line):
            self._begin(started[1])
        elif finished := _FINISHED.search(line):
            self._end(finished[2])
        elif line.startswith(ERROR_PREFIX):
            self._error = line.removeprefix(ERROR_PREFIX)
        elif self._step and line:
            self._lines.append(line)
            if line.startswith(f"{self._step}: "):
                self._show(f"  {line.removeprefix(f'{self._step}: ')}")

    def _begin(self, step: str) -> None:
        self._step, self._started, self._lines = step, time.monotonic(), []
        self._progress.update(self._bar, description=step)
        self._show(f"[bold]{step}[/bold]", markup=True)

    def _end(self, status: str) -> None:
        if status == "SUCCESS":
            self.seconds[self._step] = round(time.monotonic() - self._started, 1)
            self._progress.advance(self._bar)
            self._show(f"  done in {self.seconds[self._step]} s")
            self._step = ""

    def _show(self, text: str, *, markup: bool = False) -> None:
        self._progress.console.print(text, markup=markup)


class _Lines(io.TextIOBase):
    """A text stream that hands on whole lines."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._take(line)
        return len(text)

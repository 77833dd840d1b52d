"""The border of a step's process: what every `component.py` opens first."""

import contextlib
import logging
import os
import select
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from components.shared.errors import UserError
from components.shared.printable import printable, printable_lines

_Raised = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

ERROR_PREFIX = "brainseg error: "
MISTAKE_STATUS = 78  # EX_CONFIG of sysexits.h: the same again would fail again
_TERMINATION_LOG = Path("/dev/termination-log")  # Kubernetes shows its text as the reason


@dataclass(frozen=True)
class StepProcess:
    """What a step learns from where it runs, not from its arguments.

    Attributes:
        cache: Folder for volumes fetched from the store (`BRAINSEG_CACHE`).
        pipeline_run: Identity of the pipeline run, equal in all its steps and in their
            retries (`KFP_RUN_ID`; empty where nothing gives one).
    """

    cache: Path
    pipeline_run: str


@contextlib.contextmanager
def step_process(name: str) -> Iterator[StepProcess]:
    """Runs a step's work: log lines go to stderr, a `UserError` becomes one line.

    The process then exits with `MISTAKE_STATUS`.

    Args:
        name: The step, for the log.
    """
    write_safely(logging.INFO, f"{name}: %(message)s")
    for chatty in ("httpx", "alembic", "matplotlib", "fontTools"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    _exit_with_launcher()
    try:
        yield StepProcess(cache=cache_folder(), pipeline_run=os.environ.get("KFP_RUN_ID", ""))
    except UserError as error:
        message = printable(" ".join(str(error).split()))
        with contextlib.suppress(OSError):  # the file exists in Kubernetes only
            if _TERMINATION_LOG.exists():
                _TERMINATION_LOG.write_text(message)
        sys.stderr.write(f"{ERROR_PREFIX}{message}\n")
        raise SystemExit(MISTAKE_STATUS) from error
    logging.getLogger().setLevel(logging.WARNING)  # KFP's executor says where it writes outputs


def write_safely(level: int, form: str) -> None:
    """Sends log lines to stderr so that no name in them forges a line or drives a terminal.

    A record is one line. The lines of a traceback, logged or that of a crash, are indented but
    for the first.

    Args:
        level: Records below it are left out.
        form: As `logging.Formatter` takes it.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_SafeFormatter(form))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    sys.excepthook = _write_crash


def cache_folder() -> Path:
    """The folder for fetched volumes: `BRAINSEG_CACHE`, else the user's cache folder."""
    given = os.environ.get("BRAINSEG_CACHE")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "brainseg"


class _SafeFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))

    def formatException(self, ei: _Raised) -> str:
        return printable_lines(super().formatException(ei))


def _write_crash(
    _: type[BaseException], error: BaseException, __: TracebackType | None = None
) -> None:
    sys.stderr.write(printable_lines("".join(traceback.format_exception(error)).strip()) + "\n")


def _exit_with_launcher() -> None:
    """Ends this process when nobody reads its output any more.

    A local launcher that is killed cannot end its steps; without this they would go on,
    beside those of the next attempt.
    """
    if os.environ.get("BRAINSEG_EXIT_WITH_LAUNCHER"):
        threading.Thread(target=_watch_output, daemon=True).start()


def _watch_output() -> None:
    watcher = select.poll()
    watcher.register(1, select.POLLERR)
    watcher.poll()
    os._exit(1)

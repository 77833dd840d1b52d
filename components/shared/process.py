"""Process setup of a step: logging, exit codes, termination message."""

import atexit
import contextlib
import gc
import logging
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from components.shared.environment import adopt_settings
from components.shared.errors import OutageError, UserError
from components.shared.printable import printable, printable_lines

_Raised = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

ERROR_PREFIX = "brainseg error: "
OUTAGE_PREFIX = "brainseg outage: "  # in the termination message only

# From sysexits.h. A crash of Python is 1, a usage error of a shell or argparse 2; 64 and 65 are
# exit codes of Argo's own executor (cmd/argoexec/main.go, workflow/common/common.go). They are
# visible where a pod runs the step itself: KFP's launcher turns every status into 1.
MISTAKE_STATUS = 78  # EX_CONFIG: the same again would fail again
OUTAGE_STATUS = 75  # EX_TEMPFAIL: a service did not answer

_GRACE_S = 10.0  # from SIGTERM to the forced end of a step whose launcher has ended

_TERMINATION_LOG = Path("/dev/termination-log")  # Kubernetes shows its text as the reason
_TERMINATION_BYTES = 4096  # the kubelet keeps the end of a longer file, without the prefix


@dataclass(frozen=True)
class StepProcess:
    """Settings of a step from its environment, not from its arguments.

    Attributes:
        cache: Folder for volumes fetched from the store (`BRAINSEG_CACHE`).
        pipeline_run: Identity of the pipeline run, equal in all its steps and their retries
            (`KFP_RUN_ID`; empty if unset). On a cluster it is the pod's label `pipeline/runid`:
            KFP's run id, as `dsl.PIPELINE_JOB_ID_PLACEHOLDER` is, also of a scheduled run. It
            does not change with "Retry" (backend/src/apiserver/template/v2_template.go at 2.17.0).
    """

    cache: Path
    pipeline_run: str


@contextlib.contextmanager
def step_process(name: str, label: str = "") -> Iterator[StepProcess]:
    """Runs a step's work: log lines go to stderr, a `UserError` becomes one line.

    The reason of a failure is written to the termination message, which Kubernetes and Argo
    show: a `UserError` as `brainseg error: ...` (exit code `MISTAKE_STATUS`), a service that did
    not answer as `brainseg outage: ...` (`OUTAGE_STATUS`), a crash without a prefix.

    Args:
        name: Name of the step in the log.
        label: Task of this step in the run, e.g. fold-1; part of every line and message.
    """
    which = f"{label}: " if label else ""
    write_safely(logging.INFO, f"{name}: {which.replace('%', '%%')}%(message)s")
    for verbose in ("httpx", "alembic", "matplotlib", "fontTools"):
        logging.getLogger(verbose).setLevel(logging.WARNING)
    _exit_with_launcher()
    try:
        adopt_settings()
        yield StepProcess(cache=cache_folder(), pipeline_run=os.environ.get("KFP_RUN_ID", ""))
    except UserError as error:
        message, is_outage = _one_line(f"{which}{error}"), isinstance(error, OutageError)
        _leave_reason(f"{OUTAGE_PREFIX if is_outage else ERROR_PREFIX}{message}")
        sys.stderr.write(f"{ERROR_PREFIX}{message}\n")
        raise SystemExit(OUTAGE_STATUS if is_outage else MISTAKE_STATUS) from error
    except Exception as error:
        # begins with the name of its type, so that no text in it passes for a UserError
        text = "".join(traceback.format_exception_only(error))
        _leave_reason(_one_line(which + _ends(text)))
        raise
    logging.getLogger().setLevel(logging.WARNING)  # KFP's executor logs where it writes outputs


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Pauses the garbage collector during imports, and excludes the imported objects later.

    torch and MLflow create millions of objects and hardly any garbage. Searching them takes a
    fifth of a step's start, and half a second from time to time afterwards. They are included
    again when the process ends: otherwise triton reports each of them as leaked.
    """
    was_on, modules_before = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > modules_before:  # frozen objects are never freed: once is enough
            gc.freeze()
            atexit.register(gc.unfreeze)
        if was_on:
            gc.enable()


def write_safely(level: int, form: str) -> None:
    """Sends log lines to stderr, escaped so that no name forges a line or controls a terminal.

    A record is one line. The lines of a traceback are indented, except for the first.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_SafeFormatter(form))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    sys.excepthook = _write_crash


def cache_folder() -> Path:
    """Returns the folder for fetched volumes: `BRAINSEG_CACHE`, or the user's cache folder."""
    given = os.environ.get("BRAINSEG_CACHE")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "brainseg"


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def _ends(text: str) -> str:
    """Returns first and last line: torch puts a whole traceback between failure and reason."""
    lines = text.splitlines()
    return text if len(lines) <= 2 else f"{lines[0]} ... {lines[-1]}"


def _leave_reason(message: str) -> None:
    cut = message.encode()[:_TERMINATION_BYTES].decode(errors="ignore")
    with contextlib.suppress(OSError):  # the file exists in Kubernetes only
        if _TERMINATION_LOG.exists():
            _TERMINATION_LOG.write_text(cut)


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
    """Ends this process when no process reads its output any more.

    A local launcher that is killed cannot end its steps. Without this they would keep running
    next to those of the next attempt. Ctrl-C reaches all processes, so it is ignored here: the
    launcher's end counts.
    """
    if os.environ.get("BRAINSEG_EXIT_WITH_LAUNCHER"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=_watch_output, daemon=True).start()


def _watch_output() -> None:
    watcher = select.poll()
    watcher.register(1, select.POLLERR)
    watcher.poll()
    os.kill(os.getpid(), signal.SIGTERM)  # a training first ends its step
    time.sleep(_GRACE_S)
    os._exit(1)

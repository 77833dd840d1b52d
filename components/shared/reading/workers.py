"""Worker processes that read scans, each under a limit of memory and of CPU time.

Decoders are C libraries: a hostile file can make them crash, fill the memory or loop. That ends the
worker, never the step: the scan that it held is refused, and a new worker replaces it.
"""

import contextlib
import math
import multiprocessing
import os
import pickle
import resource
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

from components.shared.errors import UserError
from components.shared.reading.scans import BadScanError

Item = TypeVar("Item")
Result = TypeVar("Result")

_OUT_OF_MEMORY = 77  # exit code of a worker
_STATM = Path("/proc/self/statm")


@dataclass(frozen=True)
class Limits:
    """Resources of one worker.

    Attributes:
        memory_bytes: Address space in addition to that of the new process, on Linux; see
            `SizeLimits.worker_bytes`.
        cpu_s: CPU seconds for one item. A volume of 400 MiB takes about 5; the time in which a
            source is slow does not count.
    """

    memory_bytes: int = 2**30
    cpu_s: int = 300

    @property
    def memory(self) -> str:
        """The memory for messages, e.g. `1 GiB`."""
        return f"{self.memory_bytes / 2**30:.2g} GiB"


@dataclass(frozen=True)
class Refused:
    """An item that could not be read, and the reason."""

    reason: str


def run_in_workers(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    limits: Limits | None = None,
) -> Iterator[tuple[Item, Result | Refused]]:
    """Yields every item with its result, in the order they are done.

    Args:
        work: Function of one item; can be pickled. Each worker keeps a copy of it.
        items: Scans, none of them `None`. Each worker holds one; no others are read ahead.
        workers: Number of processes.
        limits: Limits of each process.

    Raises:
        UserError: If no process can be started.
        Exception: Any exception of `work` other than `BadScanError` and `MemoryError`.
    """
    # pickled: a forked process would share open files and connections with this one
    pool = [_Worker(pickle.dumps(work), limits or Limits()) for _ in range(workers)]
    waiting = iter(items)
    try:
        for worker in pool:
            worker.take(next(waiting, None))
        while busy := {worker.connection: worker for worker in pool if worker.item is not None}:
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index] # only connections are waited for
                item, result = worker.item, worker.result()
                worker.take(next(waiting, None))
                yield item, result
    finally:
        for worker in pool:
            worker.stop()


class _Worker:
    """A process that handles one item at a time; a new one after it has died."""

    def __init__(self, work: bytes, limits: Limits) -> None:
        self.item: Any = None
        self.connection: Connection
        self._work, self._limits = work, limits
        self._process: multiprocessing.Process | None = None

    def take(self, item: object) -> None:
        self.item = item
        if item is None:
            return
        if self._process is None or not self._process.is_alive():
            self._start()
        with contextlib.suppress(BrokenPipeError):  # it has just died: `result` finds the reason
            _send(self.connection, item)

    def result(self) -> Any:  # noqa: ANN401 - of any `work`
        self.item = None
        try:
            result = _receive(self.connection)
        except (EOFError, OSError):
            return Refused(self._cause_of_death())
        if isinstance(result, Exception):
            raise result
        return result

    def stop(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(EOFError, OSError):
            if self.item is not None:
                _receive(self.connection)  # it finishes what it is writing
            _send(self.connection, None)
        self.connection.close()
        self._process.join()

    def _start(self) -> None:
        self._process = None
        self.connection, theirs = multiprocessing.Pipe()
        process = multiprocessing.Process(
            target=_serve, args=(theirs, self._work, self._limits), daemon=True
        )
        with theirs:
            try:
                process.start()
            except OSError as error:
                raise UserError(
                    f"no process can be started to read volumes ({error.strerror}); raise the "
                    "limit of processes of the container or the user, or free memory"
                ) from error
        self._process = process

    def _cause_of_death(self) -> str:
        assert self._process is not None
        self._process.join()
        code = self._process.exitcode or 0
        if code == _OUT_OF_MEMORY:
            return f"it needs more memory than there is; give each process {self._limits.memory}"
        if code == -signal.SIGKILL:
            return (
                "its process was killed, most likely for want of memory; give each process "
                f"{self._limits.memory}"
            )
        if code == -signal.SIGXCPU:
            return f"reading it takes more than {self._limits.cpu_s} s of CPU time"
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"its process ended with {cause}, most likely because of a hostile file"


def _serve(connection: Connection, work: bytes, limits: Limits) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends the work
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _set_limit(resource.RLIMIT_CORE, 0)  # no patient's voxels on the disk
    if _STATM.exists():
        used = int(_STATM.read_text().split()[0]) * resource.getpagesize()
        _set_limit(resource.RLIMIT_AS, used + limits.memory_bytes)
    function = pickle.loads(work)
    for item in iter(lambda: _receive(connection), None):
        _set_limit(resource.RLIMIT_CPU, math.ceil(time.process_time()) + limits.cpu_s)
        try:
            _send(connection, _answer(function, item))
        except MemoryError:
            os._exit(_OUT_OF_MEMORY)


def _end_with_parent() -> None:
    # a killed parent cannot stop its workers: without this they would wait for ever
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _set_limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _answer(function: Callable[[object], object], item: object) -> object:
    try:
        return function(item)
    except BadScanError as error:
        return Refused(str(error))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - the border of a process; the parent raises it
        error.add_note(traceback.format_exc())
        return error


def _send(connection: Connection, value: object) -> None:
    """Sends arrays as they lie in memory: a pickle of a volume would be a second copy of it."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    connection.send_bytes(pickle.dumps((head, [view.nbytes for view in views])))
    for view in views:
        connection.send_bytes(view)


def _receive(connection: Connection) -> Any:  # noqa: ANN401 - what was sent
    head, sizes = pickle.loads(connection.recv_bytes())
    buffers = [bytearray(size) for size in sizes]
    for buffer in buffers:
        connection.recv_bytes_into(buffer)
    return pickle.loads(head, buffers=buffers)

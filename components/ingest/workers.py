"""Spreads volumes over processes, a few at a time, so that memory stays flat."""

import functools
import itertools
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from components.ingest.entry import describe_volume
from components.ingest.settings import IngestSettings
from components.shared.dataset.ingest_account import Quarantined
from components.shared.dataset.manifest import VolumeEntry
from components.shared.dataset.volumes import EncodedVolume, encode_volume, volume_key
from components.shared.errors import UserError
from components.shared.machine import free_memory, usable_cores
from components.shared.reading.scans import BadScanError, Scan, read_scan
from components.shared.reading.sources.source import Source
from components.shared.storage.store import Store, open_store

# The largest volume that the door lets through (400 MiB) takes 963 MiB: 63 for Python and its
# libraries, twice the volume (its voxels, the store's object) and a quarter for looking at it. The
# largest of the LGG set (88 slices of 256 x 256) takes 112.
_WORKER_BYTES = 2**30
# this process spends 2.5 ms on a volume, a worker 63: more of them would wait for it
_MOST_WORKERS = 24


@dataclass(frozen=True)
class Accepted:
    """A volume that passed the door and is in the store.

    Attributes:
        scan: Its name and files.
        entry: What the manifest says about it, without attributes.
        bytes_written: Bytes that were stored; 0 if the store held the volume already.
    """

    scan: Scan
    entry: VolumeEntry
    bytes_written: int


Outcome = Accepted | Quarantined


@dataclass(frozen=True)
class _Stored:
    """What a worker sends back: not the scan, which would be there twice."""

    entry: VolumeEntry
    bytes_written: int


@dataclass(frozen=True)
class VolumeWork:
    """Reads, checks, encodes and stores one volume; can be sent to another process."""

    source: Source
    store_uri: str
    settings: IngestSettings

    def __call__(self, scan: Scan) -> _Stored | str:
        """Returns what was stored, or the reason why nothing was."""
        try:
            entry, encoded = self._encode(scan)
            return _Stored(entry, self._keep(encoded))
        except BadScanError as error:
            return str(error)
        except MemoryError:
            return "it needs more memory than there is; give each process 1 GiB"

    def _encode(self, scan: Scan) -> tuple[VolumeEntry, EncodedVolume]:
        volume = read_scan(self.source, scan, self.settings.max_file_mib)
        encoded = encode_volume(volume)
        return describe_volume(scan.name, volume, encoded), encoded

    def _keep(self, encoded: EncodedVolume) -> int:
        """Bytes that were written."""
        key = volume_key(encoded.digest)
        if self._store.exists(key):
            return 0
        self._store.write(key, encoded.data)
        return len(encoded.data)

    @functools.cached_property
    def _store(self) -> Store:
        return open_store(self.store_uri)


def usable_workers() -> int:
    """The number of processes when none is given: as many as cores and free memory allow.

    Each is counted with 1 GiB; more than 24 are of no use.
    """
    free = free_memory()
    fitting = _MOST_WORKERS if free is None else free // _WORKER_BYTES
    return max(1, min(usable_cores(), fitting, _MOST_WORKERS))


def work_on(work: VolumeWork, scans: Iterable[Scan], workers: int) -> Iterator[Outcome]:
    """Yields the outcome of every scan, in the order they are done.

    Args:
        work: What is done with each.
        scans: The scans; only a few are taken ahead.
        workers: Processes; with 1 the work is done in this one.

    Raises:
        UserError: If the source or the store fails, or a process was killed.
    """
    if workers == 1:
        yield from (_outcome(scan, work(scan)) for scan in scans)
        return
    # pickled: a forked process would share open files and connections with this one
    pool = ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(pickle.dumps(work),))
    try:
        yield from _drain(pool, iter(scans), ahead=2 * workers)
    except BrokenProcessPool as error:
        raise UserError(
            "ingest: one of its processes was killed, most likely for want of memory; give it "
            "more memory and run it again: it goes on where it stopped"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _drain(pool: ProcessPoolExecutor, scans: Iterator[Scan], ahead: int) -> Iterator[Outcome]:
    running: dict[Future[_Stored | str], Scan] = {}
    while True:
        for scan in itertools.islice(scans, ahead - len(running)):
            running[pool.submit(_work_here, scan)] = scan
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            yield _outcome(running.pop(future), future.result())


def _outcome(scan: Scan, result: _Stored | str) -> Outcome:
    if isinstance(result, str):
        return Quarantined(scan.name.volume, result, scan.paths)
    return Accepted(scan, result.entry, result.bytes_written)


_work: VolumeWork | None = None  # of this worker process; keeps its connections open


def _start_worker(work: bytes) -> None:
    global _work
    _work = pickle.loads(work)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends the work
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # a killed parent cannot stop its workers: without this they would wait for ever
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work_here(scan: Scan) -> _Stored | str:
    assert _work is not None
    return _work(scan)

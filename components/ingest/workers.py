"""Reads, checks and stores volumes in worker processes."""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from components.ingest.entry import describe_volume
from components.ingest.settings import IngestSettings
from components.shared.dataset.ingest_account import Quarantined
from components.shared.dataset.manifest import VolumeEntry
from components.shared.dataset.volumes import EncodedVolume, encode_volume, volume_key
from components.shared.machine import free_memory, usable_cores
from components.shared.reading.layouts.layout import Layout
from components.shared.reading.scans import Scan
from components.shared.reading.sources.source import Source
from components.shared.reading.workers import Limits, Refused, run_in_workers
from components.shared.storage.store import Store, open_store

# this process spends 2.5 ms on a volume, a worker 63: more of them would wait for it
_MOST_WORKERS = 24


@dataclass(frozen=True)
class Accepted:
    """A volume that passed all checks and is in the store.

    Attributes:
        entry: Its entry in the manifest, without attributes.
        bytes_written: Bytes that were stored; 0 if the store held the volume already.
    """

    scan: Scan
    entry: VolumeEntry
    bytes_written: int


Outcome = Accepted | Quarantined


@dataclass(frozen=True)
class VolumeWork:
    """Reads, checks, encodes and stores one volume; can be sent to another process."""

    source: Source
    store_uri: str
    settings: IngestSettings
    layout: Layout

    def __call__(self, scan: Scan) -> tuple[VolumeEntry, int]:
        """Returns the entry in the manifest, and the number of bytes written."""
        entry, encoded = self._encode(scan)
        key = volume_key(encoded.digest)
        if self._store.exists(key):
            return entry, 0
        self._store.write(key, encoded.data)
        return entry, len(encoded.data)

    def _encode(self, scan: Scan) -> tuple[VolumeEntry, EncodedVolume]:
        volume = self.layout.read_scan(self.source, scan, self.settings.limits)
        encoded = encode_volume(volume)
        labels, targets = self.layout.labels, self.layout.targets
        return describe_volume(scan.name, volume, encoded, labels, targets[0]), encoded

    @functools.cached_property
    def _store(self) -> Store:
        return open_store(self.store_uri)


def usable_workers(worker_bytes: int) -> int:
    """Default number of processes: as many as cores and free memory allow, and at most 24.

    Args:
        worker_bytes: Memory of each process.
    """
    free = free_memory()
    fitting = _MOST_WORKERS if free is None else free // worker_bytes
    return max(1, min(usable_cores(), fitting, _MOST_WORKERS))


def work_on(work: VolumeWork, scans: Iterable[Scan], workers: int) -> Iterator[Outcome]:
    """Yields the outcome of every scan as it is done, by as many processes as `workers`.

    Raises:
        UserError: If the source or the store fails.
    """
    limits = Limits(memory_bytes=work.settings.limits.worker_bytes)
    for scan, result in run_in_workers(work, scans, workers, limits):
        if isinstance(result, Refused):
            yield Quarantined(scan.name.volume, result.reason, scan.paths)
        else:
            yield Accepted(scan, *result)

"""Ingest against one process that only decodes the same files, side by side.

    python -m tests.benchmarks.ingest SOURCE

Targets: ratio at most 0.5 with two cores, second ingest writes 0 bytes, peak memory at most 500 MB.
"""

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path

import tifffile

from components.ingest.ingestion import ingest_source
from components.ingest.settings import IngestSettings
from components.shared.storage.store import open_store

ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="folder in the kaggle_3m layout")
    source = parser.parse_args().source
    files = sorted(source.rglob("*.tif"))
    decode_s, ingest_s, again_s, peak_mb, again_bytes = [], [], [], 0.0, 0
    decode(files)  # the first reading fills the page cache for both
    for _ in range(ROUNDS):
        decode_s.append(decode(files))
        with tempfile.TemporaryDirectory() as folder, PeakMemory() as memory:
            started = time.perf_counter()
            result = ingest_source(str(source), open_store(folder), IngestSettings())
            ingest_s.append(time.perf_counter() - started)
            started = time.perf_counter()
            again = ingest_source(str(source), open_store(folder), IngestSettings())
            again_s.append(time.perf_counter() - started)
            again_bytes += again.account.bytes_written
        peak_mb = max(peak_mb, memory.peak_mb)
    print(f"{result.account.accounting()}; data set {result.account.dataset_id}")
    report("decode only, one process", decode_s)
    report("ingest", ingest_s)
    report("ingest again", again_s)
    ratio = statistics.median(each / base for each, base in zip(ingest_s, decode_s, strict=True))
    print(f"ratio ingest / decode: {ratio:.2f} (target at most 0.5)")
    print(f"bytes written by the second ingest: {again_bytes} (target 0)")
    print(f"peak memory, all processes: {peak_mb:.0f} MB (target at most 500)")


def decode(files: list[Path]) -> float:
    started = time.perf_counter()
    for file in files:
        tifffile.imread(file)
    return time.perf_counter() - started


def report(what: str, seconds: list[float]) -> None:
    shown = ", ".join(f"{value:.2f}" for value in seconds)
    print(f"{what}: median {statistics.median(seconds):.2f} s of {shown}")


class PeakMemory:
    """Largest sum of the resident memory of this process and its children, sampled.

    Pages that processes share are counted in each: the true sum is lower.
    """

    def __enter__(self) -> "PeakMemory":
        self.peak_mb = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            self.peak_mb = max(self.peak_mb, _tree_mb(Path("/proc/self")))


def _tree_mb(process: Path) -> float:
    try:
        pages = int((process / "statm").read_text().split()[1])
        children = " ".join(path.read_text() for path in process.glob("task/*/children"))
    except OSError:  # it has just ended
        return 0.0
    return pages * 4096 / 1e6 + sum(_tree_mb(Path("/proc", child)) for child in children.split())


if __name__ == "__main__":
    main()

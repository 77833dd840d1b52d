"""Reading a case of four NIfTI channels against bare nibabel, side by side, and its ingest.

    python -m tests.benchmarks.nifti

Targets: ratio at most 1.2, peak memory of a process at most 600 MB.
"""

import argparse
import functools
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt

from components.ingest.ingestion import ingest_source, open_listing
from components.ingest.settings import IngestSettings
from components.shared.storage.store import open_store
from tests.benchmarks.ingest import report

CHANNELS = ("t1n", "t1c", "t2w", "t2f")
ROUNDS = 5
SETTINGS = IngestSettings.model_validate(
    {"layout": "brats", "max_file_mib": 2048, "max_volume_mib": 2048}
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(240, 240, 155))
    parser.add_argument("--dtype", default="int16", help="int16 or float32")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source")
        write_case(source / "BraTS-SYN-00001-000", tuple(options.shape), options.dtype)
        compare_reading(source)
        started = time.perf_counter()
        store = open_store(str(Path(folder, "store")))
        result = ingest_source(str(source), store, SETTINGS, workers=1)
        wall_s = time.perf_counter() - started
        peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
        size_mb = result.account.bytes_written / 1e6
        print(f"ingest: {wall_s:.1f} s for {size_mb:.0f} MB stored")
        print(f"peak memory of its process: {peak_mb:.0f} MB (target at most 600)")


def write_case(folder: Path, shape: tuple[int, ...], dtype: str) -> None:
    """Writes smooth noise in a ball, like a brain in air, in four channels with a label map."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    axes = [np.linspace(-1, 1, length, dtype=np.float32) ** 2 for length in shape]
    ball = functools.reduce(np.add.outer, axes)
    for channel in CHANNELS:
        noise = random.standard_normal(shape, np.float32)
        smooth = (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)) * 100 + 1000
        save(folder / f"{folder.name}-{channel}.nii.gz", np.where(ball < 0.5, smooth, 0), dtype)
    save(folder / f"{folder.name}-seg.nii.gz", np.where(ball < 0.02, 1, 0), "uint8")


def save(path: Path, voxels: npt.NDArray[Any], dtype: str) -> None:
    nibabel.save(nibabel.Nifti1Image(voxels.astype(dtype), np.diag((-1, -1, 1, 1))), path)


def compare_reading(source: Path) -> None:
    files = sorted(source.rglob("*.nii.gz"))
    bare_s, ours_s = [], []
    with open_listing(str(source), SETTINGS) as opened:
        (scan,) = opened.unique_scans
        for _ in range(ROUNDS):
            bare_s.append(cpu_s(lambda: decode_and_stack(files)))
            ours_s.append(
                cpu_s(lambda: opened.layout.read_scan(opened.source, scan, SETTINGS.limits))
            )
    report("nibabel, decode and stack", bare_s)
    report("read and validate", ours_s)
    ratio = statistics.median(ours / bare for ours, bare in zip(ours_s, bare_s, strict=True))
    print(f"ratio: {ratio:.2f} (target at most 1.2)")


def decode_and_stack(files: list[Path]) -> None:
    _, *channels = (np.asarray(nibabel.load(file).dataobj) for file in files)  # type: ignore[attr-defined]
    np.stack(channels, axis=-1)


def cpu_s(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main()

"""Profile and split of simulated manifests: seconds, and whether they grow linearly.

    python -m tests.benchmarks.scale [--patients 100000]

Goal: profile and split of 100,000 patients in at most 60 s together, no voxels read.
"""

import argparse
import gc
import logging
import resource
import tempfile
import time
from pathlib import Path

from kfp import dsl

from components.profile.component import profile
from components.shared.dataset.ingest_account import IngestAccount
from components.split.component import split
from tests.conftest import simulate_manifest

GOAL_S = 60
LINEAR = 1.5  # seconds per patient may grow by this factor, for sorting and the cache


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=100_000)
    patients = parser.parse_args().patients
    logging.disable()
    measure(100)  # imports and fonts
    small, large = measure(patients // 10), measure(patients)
    growth = (sum(large) / patients) / (sum(small) / (patients // 10))
    print(
        f"seconds per patient, {patients:,} to {patients // 10:,}: {growth:.2f} (linear: up to "
        f"{LINEAR}): {'reached' if growth <= LINEAR else 'MISSED'}"
    )
    print(
        f"{patients:,} patients: {sum(large):.1f} s, goal {GOAL_S} s: "
        f"{'reached' if sum(large) <= GOAL_S else 'MISSED'}; "
        f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB"
    )


def measure(patients):
    """Runs both steps, files in and files out, and returns their seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset_id = prepare(folder, patients)
        manifest = dsl.Dataset(uri=str(folder / "manifest"))
        seconds = (
            timed(run_profile, folder, dataset_id, manifest),
            timed(run_split, folder, dataset_id, manifest),
        )
        page = (folder / "page").stat().st_size
    print(
        f"{patients:>7,} patients: profile {seconds[0]:.2f} s, split {seconds[1]:.2f} s, "
        f"page {page / 1e6:.1f} MB"
    )
    return seconds


def prepare(folder, patients):
    data = simulate_manifest(patients)
    (folder / "manifest").write_bytes(data.to_json())
    account = IngestAccount(
        source="simulated",
        dataset_id=data.dataset_id,
        volumes=patients,
        slices=0,
        tumour_slices=0,
        quarantined=(),
        ignored={},
        files_found=0,
        files_accepted=0,
        objects_written=0,
        bytes_written=0,
        warnings=(),
    )
    (folder / "account").write_text(account.model_dump_json())
    return data.dataset_id


def run_profile(folder, dataset_id, manifest):
    profile.python_func(
        str(folder / "store"),  # empty: to read voxels would be an error
        dataset_id,
        manifest,
        dsl.Artifact(uri=str(folder / "account")),
        "montage_volumes: 0",
        dsl.Artifact(uri=str(folder / "profile")),
        dsl.HTML(uri=str(folder / "page")),
    )


def run_split(folder, dataset_id, manifest):
    made = dsl.Artifact(uri=str(folder / "split"))
    split.python_func(str(folder / "store"), dataset_id, manifest, "", made)


def timed(work, *arguments):
    gc.collect()
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from components.ingest import workers
from components.ingest.settings import IngestSettings
from components.ingest.workers import Accepted, VolumeWork, usable_workers, work_on
from components.shared.dataset.ingest_account import Quarantined
from components.shared.errors import UserError
from components.shared.reading.layouts.tcga import TcgaLayout, list_scans
from components.shared.reading.scans import SizeLimits
from components.shared.reading.sources.opening import open_source
from components.shared.storage.store import open_store

PROJECT = Path(workers.__file__).parents[2]
GIB = 2**30
SETTINGS = IngestSettings()


def on_machine(cores, free):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "usable_cores", lambda: cores)
        patch.setattr(workers, "free_memory", lambda: free)
        return usable_workers(SizeLimits().worker_bytes)


class TestUsableWorkers:
    @pytest.mark.parametrize(
        ("cores", "free", "expected"),
        [
            (1, 8 * GIB, 1),
            (2, 8 * GIB, 2),
            (16, 32 * GIB, 16),
            (64, 5 * GIB, 5),
            (64, 256 * GIB, 24),  # more would wait for the one that hands out the work
            (64, GIB // 8, 1),
            (64, 0, 1),
            (8, None, 8),  # a system that does not say
        ],
    )
    def test_on_machines_of_many_sizes(self, cores, free, expected):
        assert on_machine(cores, free) == expected

    @given(cores=st.integers(1, 1024), free=st.integers(0, 2**45))
    def test_never_more_than_cores_or_memory_allow(self, cores, free):
        found = on_machine(cores, free)
        assert 1 <= found <= cores
        assert found == 1 or found * GIB <= free


PROGRAM = Path(__file__).with_name("limited_ingest.py")


def ingest_within(mib, folder, workers=2):
    """The account of an ingest of `folder/source`, and the most MiB that a process took."""
    command = [sys.executable, PROGRAM, folder / "source", folder / "store", workers, mib]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return told["account"], told["peak_mib"]


@pytest.fixture
def write_large(tmp_path):
    """Writes a volume of 1,024 x 1,024 pixels a slice, each of them the same few kilobytes."""

    def write(name, slices):
        folder = tmp_path / "source" / name
        folder.mkdir(parents=True)
        image = np.zeros((1024, 1024, 3), np.uint8)
        image[:9] = len(name) + slices
        for number in range(1, slices + 1):
            for end, pixels in (("", image), ("_mask", image[..., 0])):
                path = folder / f"{name}_{number}{end}.tif"
                if number > 1:
                    path.hardlink_to(folder / f"{name}_1{end}.tif")
                else:
                    tifffile.imwrite(path, pixels, compression="zlib")

    return write


class TestMemory:
    def test_the_largest_volume_takes_what_a_process_is_counted_with(self, tmp_path, write_large):
        write_large("TCGA_CS_0001_19990101", slices=100)
        account, peak_mib = ingest_within(4096, tmp_path, workers=1)
        assert account["slices"] == 100
        assert 800 < peak_mib < 1024

    def test_the_largest_real_volume_takes_little_of_it(self, tmp_path, write_volume):
        for number in range(2):
            write_volume(tmp_path / "source", f"TCGA_CS_{number:04d}_19990101", slices=88, side=256)
        account, peak_mib = ingest_within(1024, tmp_path)
        assert account["volumes"] == 2
        assert 50 < peak_mib < 150

    LARGE = "101 x 1024 x 1024 voxels take 404 MiB, the limit of a volume is 400 MiB"
    SHORT = "it needs more memory than there is; give each process 1 GiB"

    @pytest.mark.parametrize(
        ("workers", "slices", "mib", "reason"),
        [
            (1, 101, 640, LARGE),
            (2, 101, 640, LARGE),
            (2, 100, 640, SHORT),
            (1, 100, 320, SHORT),
            pytest.param(1, 100, 640, SHORT, marks=pytest.mark.slow),
            pytest.param(2, 100, 320, SHORT, marks=pytest.mark.slow),
        ],
    )
    def test_a_volume_that_unpacks_to_too_much_leaves_the_others_alone(
        self, tmp_path, write_volume, write_large, workers, slices, mib, reason
    ):
        write_large("TCGA_CS_0001_19990101", slices)
        for number in (2, 3):
            write_volume(tmp_path / "source", f"TCGA_CS_{number:04d}_19990101")
        account, _ = ingest_within(mib, tmp_path, workers)
        assert account["volumes"] == 2
        assert [bad["reason"] for bad in account["quarantined"]] == [reason]


@pytest.fixture
def source(tmp_path, write_volume):
    """Eleven volumes and one whose slice is no image."""
    for number in range(12):
        write_volume(tmp_path / "source", f"TCGA_CS_{number:04d}_19990101")
    bad = tmp_path / "source" / "TCGA_CS_0007_19990101" / "TCGA_CS_0007_19990101_2.tif"
    bad.write_bytes(b"no image")
    with open_source(str(tmp_path / "source"), SETTINGS.max_archive_gib) as opened:
        yield opened


class TestWorkOn:
    @pytest.mark.parametrize("count", [1, 2, 5])
    def test_every_scan_has_one_outcome_whatever_the_number_of_processes(
        self, source, tmp_path, count
    ):
        scans = list_scans(source).scans
        work = VolumeWork(source, str(tmp_path / "store"), SETTINGS, TcgaLayout())
        outcomes = list(work_on(work, scans, count))
        (refused,) = (outcome for outcome in outcomes if isinstance(outcome, Quarantined))
        accepted = [outcome for outcome in outcomes if isinstance(outcome, Accepted)]
        assert refused.volume == "TCGA_CS_0007_19990101"
        assert sorted(outcome.entry.volume for outcome in accepted) == sorted(
            scan.name.volume for scan in scans if scan.name.volume != refused.volume
        )
        stored = (tmp_path / "store" / "volumes").rglob("*.safetensors")
        assert sum(outcome.bytes_written for outcome in accepted) == sum(
            path.stat().st_size for path in stored
        )

    def test_what_the_store_holds_is_not_written_again(self, source, tmp_path):
        scans = list_scans(source).scans
        work = VolumeWork(source, str(tmp_path / "store"), SETTINGS, TcgaLayout())
        list(work_on(work, scans, 1))
        again = [outcome for outcome in work_on(work, scans, 2) if isinstance(outcome, Accepted)]
        assert [outcome.bytes_written for outcome in again] == [0] * 11

    def test_a_store_that_fails_ends_the_work(self, source, tmp_path):
        (tmp_path / "file").touch()
        work = VolumeWork(source, str(tmp_path / "file"), SETTINGS, TcgaLayout())
        with pytest.raises(UserError, match="a file stands where a folder should be"):
            list(work_on(work, list_scans(source).scans, 2))

    def test_a_killed_process_quarantines_its_volume_and_is_replaced(self, source, tmp_path):
        scans = list_scans(source).scans
        work = KilledOnce(source, str(tmp_path / "store"), SETTINGS, TcgaLayout())
        outcomes = list(work_on(work, scans, 2))
        assert len(outcomes) == len(scans)
        reasons = {bad.volume: bad.reason for bad in outcomes if isinstance(bad, Quarantined)}
        assert set(reasons) == {"TCGA_CS_0003_19990101", "TCGA_CS_0007_19990101"}
        assert reasons["TCGA_CS_0003_19990101"].startswith("its process was killed")


class KilledOnce(VolumeWork):
    """The kernel kills the process that holds one of the volumes."""

    def __call__(self, scan):
        if scan.name.volume == "TCGA_CS_0003_19990101":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(scan)


def test_a_store_is_opened_once_a_process(source, tmp_path):
    work = VolumeWork(source, str(tmp_path / "store"), SETTINGS, TcgaLayout())
    assert work._store is work._store
    assert work._store.uri == open_store(str(tmp_path / "store")).uri

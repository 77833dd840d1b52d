import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.ingest import workers
from components.ingest.settings import IngestSettings
from components.ingest.workers import Accepted, VolumeWork, usable_workers, work_on
from components.shared.dataset.ingest_account import Quarantined
from components.shared.errors import UserError
from components.shared.reading.scans import list_scans
from components.shared.reading.sources.opening import open_source
from components.shared.storage.store import open_store

PROJECT = Path(workers.__file__).parents[2]
GIB = 2**30
SETTINGS = IngestSettings()


def on_machine(cores, free):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "usable_cores", lambda: cores)
        patch.setattr(workers, "free_memory", lambda: free)
        return usable_workers()


class TestUsableWorkers:
    @pytest.mark.parametrize(
        ("cores", "free", "expected"),
        [
            (1, 8 * GIB, 1),
            (2, 8 * GIB, 2),
            (16, 32 * GIB, 16),
            (64, 1 * GIB, 5),
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
        assert found == 1 or found * 192 * 2**20 <= free


PEAK = """
import sys
from resource import RUSAGE_CHILDREN, getrusage
from components.ingest.ingestion import ingest_source
from components.ingest.settings import IngestSettings
from components.shared.storage.store import open_store
ingest_source(sys.argv[1], open_store(sys.argv[2]), IngestSettings(), 2)
print(getrusage(RUSAGE_CHILDREN).ru_maxrss / 1024)
"""


def test_a_process_takes_less_than_it_is_counted_with(tmp_path, write_volume):
    for number in range(2):
        write_volume(tmp_path / "large", f"TCGA_CS_{number:04d}_19990101", slices=88, side=256)
    command = [sys.executable, "-c", PEAK, str(tmp_path / "large"), str(tmp_path / "store")]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert 50 < float(done.stdout) < 192


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
        work = VolumeWork(source, str(tmp_path / "store"), SETTINGS)
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
        work = VolumeWork(source, str(tmp_path / "store"), SETTINGS)
        list(work_on(work, scans, 1))
        again = [outcome for outcome in work_on(work, scans, 2) if isinstance(outcome, Accepted)]
        assert [outcome.bytes_written for outcome in again] == [0] * 11

    def test_only_a_few_scans_are_taken_ahead(self, source, tmp_path):
        taken = itertools.count()
        scans = (scan for scan in list_scans(source).scans if next(taken) >= 0)
        outcomes = work_on(VolumeWork(source, str(tmp_path / "store"), SETTINGS), scans, 2)
        next(outcomes)
        assert next(taken) <= 2 * 2 + 1
        assert len(list(outcomes)) == 11

    def test_a_store_that_fails_ends_the_work(self, source, tmp_path):
        (tmp_path / "file").touch()
        work = VolumeWork(source, str(tmp_path / "file"), SETTINGS)
        with pytest.raises(UserError, match="a file stands where a folder should be"):
            list(work_on(work, list_scans(source).scans, 2))

    def test_a_killed_process_is_told(self, source, tmp_path):
        work = VolumeWork(source, str(tmp_path / "store"), SETTINGS)
        outcomes = work_on(work, itertools.cycle(list_scans(source).scans), 2)
        next(outcomes)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        with pytest.raises(UserError, match="killed, most likely for want of memory"):
            list(outcomes)


def test_a_store_is_opened_once_a_process(source, tmp_path):
    work = VolumeWork(source, str(tmp_path / "store"), SETTINGS)
    assert work._store is work._store
    assert work._store.uri == open_store(str(tmp_path / "store")).uri

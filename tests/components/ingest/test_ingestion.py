import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import components
from components.ingest.ingestion import ingest_source
from components.ingest.settings import IngestSettings
from components.shared.dataset.ingest_account import IngestAccount
from components.shared.dataset.manifest import fetch_manifest, manifest_key
from components.shared.dataset.volumes import fetch_volume, volume_key
from components.shared.errors import UserError
from components.shared.storage.s3 import connect, parse_s3_uri
from components.shared.storage.store import open_store

SETTINGS = IngestSettings()
PROJECT = Path(components.__file__).parents[1]

INGEST = """
import sys
from components.ingest.ingestion import ingest_source
from components.ingest.settings import IngestSettings
from components.shared.storage.store import open_store
result = ingest_source(sys.argv[1], open_store(sys.argv[2]), IngestSettings(), int(sys.argv[3]))
print(result.account.model_dump_json())
"""

PEAK = """
import re
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
# not RUSAGE_SELF: that starts with what the process before exec had
own = int(re.search(r"VmHWM:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())[1])
print((own + 2 * getrusage(RUSAGE_CHILDREN).ru_maxrss) / 1024)
"""


def start(source, store, workers=2, script=INGEST):
    command = [sys.executable, "-c", script, str(source), str(store), str(workers)]
    return subprocess.Popen(
        command,
        cwd=PROJECT,
        start_new_session=True,  # its workers are found, and signalled, as one group
        # behind nohup the tests, and so what they start, would not hear SIGINT
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def objects(store):
    return sorted(Path(store).glob("volumes/*/*.safetensors"))


def manifests(store):
    return sorted(Path(store).glob("datasets/*/*"))


def test_a_set_that_opencv_rewrote_is_the_same(tmp_path, write_volume):
    """It writes LZW with differences between neighbors, by libtiff as Pillow does."""
    for name in ("TCGA_CS_0001_19990101", "TCGA_DU_0002_19990101"):
        write_volume(tmp_path / "raw", name)
    shutil.copytree(tmp_path / "raw", tmp_path / "lzw")
    for path in (tmp_path / "lzw").rglob("*.tif"):
        pixels = Image.fromarray(tifffile.imread(path))
        pixels.save(path, compression="tiff_lzw", tiffinfo={317: 2})
        assert tifffile.TiffFile(path).pages.first.predictor == 2
    raw, lzw = (
        ingest_source(str(tmp_path / name), open_store(str(tmp_path / "store")), SETTINGS, 1)
        for name in ("raw", "lzw")
    )
    assert lzw.account.dataset_id == raw.account.dataset_id
    assert lzw.account.objects_written == 0


@pytest.fixture(scope="module")
def many(tmp_path_factory, write_volume):
    """A source of 60 small volumes; not to be changed."""
    folder = tmp_path_factory.mktemp("source") / "many"
    for number in range(60):
        write_volume(folder, f"TCGA_CS_{number:04d}_19990101", side=64)
    return folder


def test_publishes_what_it_read(synthetic_folder, tmp_path):
    store = open_store(str(tmp_path))
    result = ingest_source(str(synthetic_folder), store, SETTINGS, workers=2)
    account = result.account
    assert fetch_manifest(store, account.dataset_id) == result.manifest
    assert [entry.volume for entry in result.manifest.volumes] == sorted(
        path.name for path in synthetic_folder.glob("TCGA_*")
    )
    for entry in result.manifest.volumes:
        volume = fetch_volume(store, entry.digest, tmp_path / "cache")
        assert volume.image.shape == (entry.slices, entry.height, entry.width, 3)
        assert int(volume.mask.sum()) == entry.tumour_pixels
    assert account.volumes == account.objects_written == len(objects(tmp_path)) == 6
    assert account.bytes_written == sum(path.stat().st_size for path in objects(tmp_path))
    assert account.files_found == 2 * account.slices + 1
    assert account.ignored == {"data.csv: read as attributes": 1}
    assert account.warnings == ()


def test_report_has_the_promised_keys(synthetic_folder, tmp_path):
    account = ingest_source(str(synthetic_folder), open_store(str(tmp_path)), SETTINGS, 1).account
    found = json.loads(account.model_dump_json())
    assert {"dataset_id", "volumes", "slices", "tumour_slices", "quarantined", "ignored"} <= set(
        found
    )
    assert IngestAccount.model_validate_json(account.model_dump_json()) == account


def test_second_ingest_writes_nothing(synthetic_folder, tmp_path):
    first = ingest_source(str(synthetic_folder), open_store(str(tmp_path)), SETTINGS, 2).account
    times = {path: path.stat().st_mtime_ns for path in objects(tmp_path)}
    second = ingest_source(str(synthetic_folder), open_store(str(tmp_path)), SETTINGS, 1).account
    assert second.dataset_id == first.dataset_id
    assert second.bytes_written == second.objects_written == 0
    assert times == {path: path.stat().st_mtime_ns for path in objects(tmp_path)}
    assert len(manifests(tmp_path)) == 1


def test_one_id_from_every_kind_of_source(synthetic_folder, tmp_path):
    files = sorted(synthetic_folder.rglob("*.*"), reverse=True)
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            archive.write(path, Path("deep") / "kaggle_3m" / path.relative_to(synthetic_folder))
    sources = (str(synthetic_folder), str(tmp_path / "set.zip"), "synthetic:6,seed=0")
    store = open_store(str(tmp_path / "store"))
    ids = {ingest_source(source, store, SETTINGS, 2).account.dataset_id for source in sources}
    assert len(ids) == 1


def test_one_id_from_a_bucket_into_a_bucket(synthetic_folder, tmp_path, s3_store_uri):
    bucket, prefix = parse_s3_uri(s3_store_uri)
    for path in synthetic_folder.rglob("*.*"):
        data = path.read_bytes()
        name = f"{prefix}source/{path.relative_to(synthetic_folder).as_posix()}"
        connect().put_object(bucket, name, io.BytesIO(data), len(data))
    store = open_store(f"{s3_store_uri}/store")
    first = ingest_source(f"{s3_store_uri}/source", store, SETTINGS, 2).account
    again = ingest_source(str(synthetic_folder), store, SETTINGS, 2).account
    local = ingest_source(str(synthetic_folder), open_store(str(tmp_path)), SETTINGS, 2).account
    assert first.dataset_id == again.dataset_id == local.dataset_id
    assert first.objects_written == 6
    assert again.objects_written == 0
    assert store.exists(manifest_key(first.dataset_id))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_ingest_leaves_no_version_and_is_continued(many, tmp_path, how):
    store = tmp_path / "store"
    process = start(many, store)
    wait_for(lambda: len(objects(store)) >= 3)
    os.kill(process.pid, how)
    process.communicate(timeout=300)
    assert process.returncode != 0
    wait_for(lambda: not living(group=process.pid))
    there = objects(store)
    assert 3 <= len(there) < 60
    assert manifests(store) == []
    account = ingest_source(str(many), open_store(str(store)), SETTINGS, 2).account
    assert account.volumes == 60
    assert account.objects_written == 60 - len(there)
    assert len(manifests(store)) == 1


def test_two_at_once_give_one_version(many, tmp_path):
    store = tmp_path / "store"
    pair = [start(many, store), start(many, store)]
    reports = [json.loads(process.communicate(timeout=300)[0]) for process in pair]
    assert reports[0]["dataset_id"] == reports[1]["dataset_id"]
    assert len(manifests(store)) == 1
    assert len(objects(store)) == 60
    assert list(store.rglob(".part-*")) == []


def test_killed_worker_costs_its_volume_only(many, tmp_path):
    process = start(many, tmp_path / "store")
    wait_for(lambda: len(objects(tmp_path / "store")) >= 3)
    workers = [pid for pid in living(group=process.pid) if pid != process.pid]
    os.kill(workers[0], signal.SIGKILL)
    account = json.loads(process.communicate(timeout=300)[0])
    assert account["volumes"] + len(account["quarantined"]) == 60
    reasons = [bad["reason"] for bad in account["quarantined"]]
    assert reasons in (
        [],
        ["its process was killed, most likely for want of memory; give each process 1 GiB"],
    )  # none if it was between two volumes
    assert len(manifests(tmp_path / "store")) == 1


def test_memory_does_not_grow_with_the_number_of_volumes(tmp_path, write_volume):
    peaks = {}
    for count in (6, 60):
        for number in range(count):
            name = f"TCGA_CS_{number:04d}_19990101"
            write_volume(tmp_path / str(count), name, slices=4, side=208)
        process = start(tmp_path / str(count), tmp_path / f"store{count}", script=INGEST + PEAK)
        peaks[count] = float(process.communicate(timeout=300)[0].splitlines()[-1])
    stored = sum(path.stat().st_size for path in objects(tmp_path / "store60")) / 2**20
    assert stored > 35
    assert peaks[60] - peaks[6] < stored / 3
    assert peaks[60] < 500


class TestQuarantine:
    """A bad volume is left out and told; the others go on, and every file is accounted for."""

    GOOD = ("TCGA_CS_0001_19990101", "TCGA_FG_0003_19990101", "TCGA_HT_0004_19990101")
    BAD = "TCGA_DU_0002_19990101"

    @pytest.fixture
    def source(self, tmp_path, write_volume):
        top = tmp_path / "source" / "kaggle_3m"
        for name in (*self.GOOD, self.BAD):
            write_volume(top, name)
        (top / "data.csv").write_text("Patient,gender\nTCGA_CS_0001,1\n")
        return top

    @pytest.fixture
    def run(self, tmp_path):
        def run(uri, workers=1, **settings):
            store = open_store(str(tmp_path / "store"))
            account = ingest_source(str(uri), store, IngestSettings(**settings), workers).account
            assert account.files_found == (
                account.files_accepted
                + sum(len(bad.files) for bad in account.quarantined)
                + sum(account.ignored.values())
            )
            return account

        return run

    def test_bad_volume_is_left_out_and_told(self, source, run, caplog):
        (source / self.BAD / f"{self.BAD}_2_mask.tif").unlink()
        account = run(source)
        assert account.volumes == 3
        (bad,) = account.quarantined
        assert (bad.volume, bad.reason) == (self.BAD, "missing mask of slice 2")
        assert set(bad.files) == {
            path.relative_to(source).as_posix() for path in (source / self.BAD).iterdir()
        }
        assert f"quarantined {self.BAD}: missing mask of slice 2 (5 files)" in caplog.text
        with pytest.raises(UserError, match="ingest is strict and 1 of the volumes are bad") as no:
            run(source, strict=True)
        assert f"{self.BAD}: missing mask of slice 2" in str(no.value)
        assert self.kept(no.value).quarantined == account.quarantined

    def kept(self, error):
        """The account that a refusal names; it belongs to no published version."""
        path = re.search(r"\. The account (/\S+) shows more$", str(error))[1]
        account = IngestAccount.model_validate_json(Path(path).read_bytes())
        assert not account.dataset_id
        return account

    @pytest.mark.parametrize("workers", [1, 2])
    def test_what_a_decoder_cannot_read_does_not_end_the_ingest(self, source, run, workers):
        """LZMA's own error used to come through and kill the worker, and all volumes with it."""
        path = source / self.BAD / f"{self.BAD}_2.tif"
        image = tifffile.imread(path)
        tifffile.imwrite(path, image, photometric="rgb", compression="lzma", metadata=None)
        data = path.read_bytes()
        start = data.index(b"\xfd7zXZ")
        path.write_bytes(data[: start + 50] + bytes(200) + data[start + 250 :])
        account = run(source, workers)
        assert account.volumes == 3
        (bad,) = account.quarantined
        assert bad.volume == self.BAD
        assert bad.reason.startswith(f"{self.BAD}_2.tif: damaged: ")

    def test_a_patient_may_have_several_scans(self, source, run, write_volume):
        write_volume(source, "TCGA_DU_0002_20000202")
        account = run(source)
        assert (account.volumes, account.quarantined) == (5, ())

    def test_same_pixels_under_two_names(self, source, run):
        other = "TCGA_HT_0009_19990101"
        shutil.copytree(source / self.BAD, source / other)
        for path in (source / other).iterdir():
            path.rename(path.with_name(path.name.replace(self.BAD, other)))
        mask = source / other / f"{other}_2_mask.tif"
        tifffile.imwrite(mask, np.zeros((16, 16), np.uint8))  # another mask is no excuse
        account = run(source)
        assert [bad.volume for bad in account.quarantined] == [self.BAD, other]
        assert account.quarantined[0].reason == (
            f"the same pixels are under several names: {self.BAD}, {other}"
        )

    def test_identical_copy_is_ignored_and_told(self, source, run, caplog):
        caplog.set_level("INFO")
        alone = run(source)
        copy = source.parent / "lgg-mri-segmentation" / "kaggle_3m"
        shutil.copytree(source, copy)
        path = copy / self.BAD / f"{self.BAD}_1.tif"
        image = tifffile.imread(path)
        tifffile.imwrite(path, image, compression="zlib")  # other bytes, same voxels
        account = run(source.parent)
        assert account.dataset_id == alone.dataset_id
        assert account.quarantined == ()
        assert account.ignored == {"data.csv: read as attributes": 1, "identical copy": 25}
        assert "ignored, identical copy: 25" in caplog.text

    def test_ignored_files_are_counted_by_rule(self, source, run, caplog):
        caplog.set_level("INFO")
        (source / "README.md").touch()
        (source / "stray.tif").touch()
        account = run(source)
        assert account.ignored == {
            "TIFF outside a volume folder": 1,
            "data.csv: read as attributes": 1,
            "not a TIFF": 1,
        }
        assert (
            "27 files found = 24 in 4 accepted volumes + 0 in 0 quarantined volumes + 3 ignored"
            in caplog.text
        )

    def test_wrong_checksum_in_an_archive(self, source, run):
        path = source.parent / "set.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for each in sorted(source.rglob("*.tif")):
                archive.write(each, each.relative_to(source.parent))
            start = archive.getinfo(f"kaggle_3m/{self.BAD}/{self.BAD}_2.tif").header_offset
        data = bytearray(path.read_bytes())
        data[start + 400] ^= 1  # somewhere in the pixels
        path.write_bytes(data)
        account = run(path)
        (bad,) = account.quarantined
        assert bad.volume == self.BAD
        assert "the archive is damaged here: Bad CRC-32" in bad.reason
        assert account.volumes == 3

    def test_nothing_accepted_shows_the_expected_form(self, source, run):
        for name in (*self.GOOD, self.BAD):
            (source / name).rename(source / name.replace("TCGA", "patient"))
        with pytest.raises(UserError) as raised:
            run(source)
        told = str(raised.value)
        assert "holds no usable volume: 4 refused (patient_CS_0001_19990101: the folder's" in told
        assert "e.g. kaggle_3m/TCGA_CS_4941_19960909/TCGA_CS_4941_19960909_1_mask.tif" in told
        assert len(self.kept(raised.value).quarantined) == 4

    @pytest.mark.parametrize(
        ("file", "message"),
        [
            ("a.png", "no folder of TIFF files; the expected form"),
            ("a.nii", "no folder of TIFF files, but a.nii; set layout.name to nnunet, msd, bids"),
        ],
    )
    def test_source_without_tiff(self, tmp_path, run, file, message):
        (tmp_path / file).touch()
        with pytest.raises(UserError, match=message):
            run(tmp_path)
        assert not (tmp_path / "store").exists()


class TestStoreThatRefuses:
    def test_read_only(self, public_path, write_volume, without_root):
        write_volume(public_path / "source", "TCGA_CS_0001_19990101")
        (public_path / "store").mkdir()
        with without_root(), pytest.raises(UserError, match="no permission; change the folder's"):
            self.ingest(public_path / "source", public_path / "store")
        assert list((public_path / "store").iterdir()) == []

    @pytest.mark.parametrize("workers", [1, 2])
    def test_full(self, tmp_path, synthetic_folder, workers):
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("a small disk can be mounted by root only")
        try:
            with pytest.raises(UserError, match="the disk is full; free space"):
                self.ingest(synthetic_folder, disk, workers)
            assert manifests(disk) == []
        finally:
            subprocess.run(["umount", str(disk)], check=True)

    def test_bucket_missing(self, s3_store_uri, synthetic_folder):
        with pytest.raises(UserError, match="bucket 'no-such-bucket' does not exist; create it"):
            self.ingest(synthetic_folder, "s3://no-such-bucket/store")

    def test_wrong_keys(self, s3_store_uri, synthetic_folder, monkeypatch):
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with pytest.raises(UserError, match="the secret key is wrong; check AWS_SECRET_ACCESS_KEY"):
            self.ingest(synthetic_folder, s3_store_uri, workers=2)

    def test_endpoint_down(self, synthetic_folder, monkeypatch):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        with pytest.raises(UserError, match="check AWS_ENDPOINT_URL and that the server is up"):
            self.ingest(synthetic_folder, "s3://bucket/store")

    def ingest(self, source, store, workers=1):
        return ingest_source(str(source), open_store(str(store)), SETTINGS, workers)


# of synthetic:6; a change of the format would orphan every store
DATASET_ID = "2a3dd642a2073025"
DIGESTS = {
    "TCGA_CS_0001_20020815": "aa13420dccc5ea8ff4eec5687141e0575ca91544f3a41670f5a9c5289ac09b23",
    "TCGA_CS_0005_19961113": "862059ec0951cdc87012f69d37c19eea941991d06eac9440223ad95d45f5efbd",
    "TCGA_DU_0002_19971128": "de9bd958cc0ed6181a66e3cf8f8b6209a88a88f21bbc272a9f5e2a07eb0b7aa5",
    "TCGA_DU_0006_20000524": "6a53ef1fd419798f29a8ed3a2cb6da6c1e316ed0856738f2c107308dd61f9216",
    "TCGA_FG_0003_20040109": "c141c0bdc32244bd4d60b70493a733e0b804ecf1ffcec6553808b5f8089e2ada",
    "TCGA_HT_0004_19971127": "dd266f2845ecfb345ba8fdb19c3dd9cb5963413a014d85665a4fe8ffb058b19c",
}


def test_the_same_voxels_have_the_same_ids_as_ever(synthetic_folder, tmp_path):
    store = open_store(str(tmp_path))
    manifest = ingest_source(str(synthetic_folder), store, SETTINGS, 1).manifest
    assert {entry.volume: entry.digest for entry in manifest.volumes} == DIGESTS
    assert manifest.dataset_id == DATASET_ID
    assert all(store.exists(volume_key(entry.digest)) for entry in manifest.volumes)


def wait_for(condition, timeout_s=300):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.002)


def living(group):
    """Processes of a group that have not ended (an ended one may wait for its parent)."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of = status.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(of) == group and state != "Z":
            found.append(int(status.parent.name))
    return found

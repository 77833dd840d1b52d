import contextlib
import http.server
import io
import json
import os
import pickle
import socket
import stat
import sys
import threading
import zipfile
from random import Random
from urllib.parse import urlsplit

import pytest
from minio import Minio

from components.shared.errors import UserError
from components.shared.reading.sources.opening import open_source
from components.shared.reading.sources.source import SourceFile, UnreadableFileError
from components.shared.storage.s3 import connect, parse_s3_uri

FILES = {"kaggle_3m/TCGA_CS_0001_19990101/a.tif": b"one", "kaggle_3m/data.csv": b"Patient\n"}


@pytest.fixture
def folder(public_path):
    for name, data in FILES.items():
        path = public_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return public_path / "source"


def write_zip(path, members=FILES):
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in dict(members).items():
            archive.writestr(member, data)
    return str(path)


def problems(source):
    return {file.path: file.problem for file in source.files() if file.problem}


def refusal(uri, **options):
    with pytest.raises(UserError) as raised, open_source(uri, **options) as source:
        source.files()
    return str(raised.value)


def read_refusal(uri):
    with pytest.raises(UserError) as raised, open_source(uri) as source:
        source.read("kaggle_3m/data.csv")
    return str(raised.value)


def check_contents(source):
    again = pickle.loads(pickle.dumps(source))  # as the worker processes receive it
    assert again.files() == [SourceFile(name, len(data)) for name, data in sorted(FILES.items())]
    assert {file.path: again.read(file.path) for file in again.files()} == FILES


def test_folder(folder):
    with open_source(str(folder)) as source:
        check_contents(source)
        assert source.name == "source"


def test_archive(tmp_path):
    backwards = dict(reversed(FILES.items()))
    with open_source(write_zip(tmp_path / "a.zip", {"kaggle_3m/": b""} | backwards)) as source:
        check_contents(source)


def test_bucket(s3_store_uri):
    with open_source(filled(s3_store_uri)) as source:
        check_contents(source)
        assert source.name == "prefix"


def test_synthetic_folder_is_gone_afterwards():
    with open_source("synthetic:1,seed=3") as source:
        paths = [file.path for file in source.files()]
        assert paths[-1] == "data.csv"
        assert source.name == "kaggle_3m"
    with pytest.raises(UnreadableFileError):
        source.read("data.csv")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "is not understood; give a folder, a .zip file"),
        ("http://host/data.zip", "is not understood; give a folder, a .zip file"),
        ("synthetic:", "the form is synthetic:PATIENTS"),
        ("synthetic:0", "the form is synthetic:PATIENTS"),
        ("synthetic:3,seed=x", "the form is synthetic:PATIENTS"),
        ("s3:///prefix", "names no bucket"),
        ("/nowhere/at/all", "/nowhere/at/all does not exist"),
        (__file__, "is neither a folder nor a .zip file"),
        ("kaggle:nonsense", "the form is kaggle:owner/dataset"),
    ],
)
def test_uri_that_leads_nowhere(uri, message):
    assert message in refusal(uri)


class TestFolder:
    def test_links_and_special_files_are_told(self, folder):
        outside = folder.parent / "outside"
        outside.mkdir()
        (outside / "b.tif").touch()
        scan = folder / "kaggle_3m" / "TCGA_CS_0001_19990101"
        (scan / "out.tif").symlink_to(outside / "b.tif")
        (scan / "in.tif").symlink_to(scan / "a.tif")
        (scan / "broken.tif").symlink_to(scan / "none.tif")
        (folder / "gone").symlink_to(outside)
        (folder / "again").symlink_to(scan)
        (folder / "loop").symlink_to(folder)
        os.mkfifo(folder / "pipe.tif")
        (folder / os.fsdecode(b"bad\xff.tif")).touch()
        prefix = "kaggle_3m/TCGA_CS_0001_19990101"
        with open_source(str(folder)) as source:
            assert problems(source) == {
                f"{prefix}/out.tif": "symbolic link out of the source",
                f"{prefix}/broken.tif": "cannot be read: No such file or directory",
                "gone/*": "symbolic link out of the source",
                "again/*": "symbolic link to a folder",
                "loop/*": "symbolic link to a folder",
                "pipe.tif": "not a regular file",
                "bad?.tif": "its name is not UTF-8",
            }
            assert source.read(f"{prefix}/in.tif") == b"one"

    def test_without_permission(self, folder, without_root):
        scan = folder / "kaggle_3m" / "TCGA_CS_0001_19990101"
        (folder / "kaggle_3m" / "data.csv").chmod(0)
        scan.chmod(0)
        with without_root(), open_source(str(folder)) as source:
            assert problems(source) == {
                "kaggle_3m/TCGA_CS_0001_19990101/*": "cannot be listed: Permission denied"
            }
            with pytest.raises(UnreadableFileError, match="Permission denied"):
                source.read("kaggle_3m/data.csv")
        scan.chmod(0o700)
        folder.chmod(0)
        with without_root():
            message = refusal(str(folder))
            assert "cannot be read: Permission denied; change the folder's rights" in message
            assert "cannot be read: Permission denied" in refusal(str(folder / "kaggle_3m"))
        folder.chmod(0o755)

    def test_uri_may_be_a_link(self, folder):
        link = folder.parent / "link"
        link.symlink_to(folder)
        with open_source(str(link)) as source:
            check_contents(source)


class TestArchive:
    @pytest.mark.parametrize(
        "name", ["/etc/passwd", "../up.tif", "a/../../up.tif", "C:\\a.tif", "a\\..\\..\\b.tif"]
    )
    def test_names_that_lead_out_are_refused(self, tmp_path, name):
        message = refusal(write_zip(tmp_path / "a.zip", FILES | {name: b""}))
        assert "1 of its names lead out of the archive" in message
        assert repr(name) in message

    def test_declared_size_beyond_the_limit_is_refused(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.tif", bytes(3 * 2**20))
        message = refusal(str(tmp_path / "a.zip"), max_archive_gib=2 / 1024)
        assert "unpack to 0.00293 GiB, the limit is max_archive_gib=0.00195" in message

    def test_encrypted_is_refused(self, tmp_path):
        path = write_zip(tmp_path / "a.zip")
        data = bytearray((tmp_path / "a.zip").read_bytes())
        data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
        (tmp_path / "a.zip").write_bytes(data)
        assert "is encrypted; unpack it" in refusal(path)

    @pytest.mark.parametrize("data", [b"", b"no zip", b"PK\x03\x04"])
    def test_not_an_archive(self, tmp_path, data):
        (tmp_path / "a.zip").write_bytes(data)
        assert "is not a whole zip archive" in refusal(str(tmp_path / "a.zip"))

    def test_truncated(self, tmp_path):
        path = write_zip(tmp_path / "a.zip")
        os.truncate(path, (tmp_path / "a.zip").stat().st_size - 30)
        assert "is not a whole zip archive" in refusal(path)

    def test_without_permission(self, public_path, without_root):
        path = write_zip(public_path / "a.zip")
        os.chmod(path, 0)
        with without_root():
            assert "cannot be read: Permission denied" in refusal(path)

    def test_wrong_checksum_is_the_members_fault(self, tmp_path):
        path = write_zip(tmp_path / "a.zip")
        data = (tmp_path / "a.zip").read_bytes()
        (tmp_path / "a.zip").write_bytes(data.replace(b"one", b"two"))
        with open_source(path) as source:
            with pytest.raises(UnreadableFileError, match="Bad CRC-32"):
                source.read("kaggle_3m/TCGA_CS_0001_19990101/a.tif")
            assert source.read("kaggle_3m/data.csv") == b"Patient\n"

    @pytest.mark.parametrize(
        "kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    )
    @pytest.mark.parametrize("part", [slice(0, 30), slice(30, -90), slice(-90, None)])
    def test_damage_anywhere_is_the_members_fault_or_the_archives(self, tmp_path, kind, part):
        random, reasons, path = Random(0), [], tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w", kind) as archive:
            archive.writestr("a.tif", random.randbytes(200))
        whole = path.read_bytes()
        for _ in range(300):
            damaged = bytearray(whole)
            place = random.randrange(*part.indices(len(whole)))
            damaged[place] ^= random.randrange(1, 256)
            path.write_bytes(damaged)
            reasons += read_all(path)
        assert any(reason.startswith(("the archive is damaged", "cannot be")) for reason in reasons)
        assert not any(reason.endswith(": ") for reason in reasons)

    def test_damaged_lzma_and_bzip2_leave_the_other_members_readable(self, tmp_path):
        for name, kind in (("lzma", zipfile.ZIP_LZMA), ("bzip2", zipfile.ZIP_BZIP2)):
            path = tmp_path / f"{name}.zip"
            with zipfile.ZipFile(path, "w", kind) as archive:
                archive.writestr("bad.tif", bytes(range(256)) * 4)
                archive.writestr("good.tif", b"good")
            data = bytearray(path.read_bytes())
            data[60:100] = b"\xff" * 40
            path.write_bytes(data)
            with open_source(str(path)) as source:
                with pytest.raises(UnreadableFileError):
                    source.read("bad.tif")
                assert source.read("good.tif") == b"good"

    @pytest.mark.filterwarnings("ignore:Duplicate name")  # it is what is tested
    def test_links_and_doubles_are_told(self, tmp_path):
        link = zipfile.ZipInfo("link.tif")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr(link, "/etc/passwd")
            archive.writestr("twice.tif", b"1")
            archive.writestr("twice.tif", b"2")
        with open_source(str(tmp_path / "a.zip")) as source:
            assert len(source.files()) == 3
            assert problems(source) == {
                "link.tif": "symbolic link in the archive",
                "twice.tif": "the archive holds 2 members of this name",
            }


class TestBucket:
    def test_an_object_that_is_gone_is_the_files_fault(self, s3_store_uri):
        with open_source(filled(s3_store_uri)) as source:
            source.files()
            bucket, prefix = parse_s3_uri(s3_store_uri)
            connect().remove_object(bucket, prefix + "kaggle_3m/data.csv")
            with pytest.raises(UnreadableFileError, match="gone from the bucket"):
                source.read("kaggle_3m/data.csv")
            assert source.read("kaggle_3m/TCGA_CS_0001_19990101/a.tif") == b"one"

    def test_an_object_that_is_denied_is_the_files_fault(self, s3_store_uri):
        bucket, prefix = parse_s3_uri(filled(s3_store_uri))
        everything = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
        denied = f"arn:aws:s3:::{bucket}/{prefix}kaggle_3m/data.csv"
        set_policy(
            bucket,
            {"Effect": "Allow", "Action": "s3:*", "Resource": everything},
            {"Effect": "Deny", "Action": "s3:GetObject", "Resource": denied},
        )
        with open_source(s3_store_uri) as source:
            come_without_keys(source)
            with pytest.raises(UnreadableFileError, match="access to it is denied"):
                source.read("kaggle_3m/data.csv")
            assert source.read("kaggle_3m/TCGA_CS_0001_19990101/a.tif") == b"one"
            connect().delete_bucket_policy(bucket)  # now every object is denied
            with pytest.raises(UserError, match=r"access to bucket .* is denied; check AWS_ACCESS"):
                source.read("kaggle_3m/TCGA_CS_0001_19990101/a.tif")

    def test_what_is_wrong_with_all_objects_is_the_sources_fault(self, s3_store_uri, monkeypatch):
        elsewhere = s3_store_uri.replace("brainseg-test", "brainseg-none")
        assert "does not exist; create it" in read_refusal(elsewhere)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        assert "secret key is wrong" in read_refusal(s3_store_uri)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
        assert "that the server is up" in read_refusal(s3_store_uri)

    def test_missing_bucket(self, s3_store_uri):
        assert "bucket 'no-such-bucket' does not exist" in refusal("s3://no-such-bucket/data")

    def test_wrong_keys(self, s3_store_uri, monkeypatch):
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        assert "secret key is wrong" in refusal(s3_store_uri)

    def test_endpoint_down(self, monkeypatch):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        assert "check AWS_ENDPOINT_URL and that the server is up" in refusal("s3://bucket/data")


class TestKaggle:
    def test_unreachable(self, kaggle):
        message = refusal("kaggle:owner/dataset")
        assert "Kaggle cannot be reached; check the network" in message

    @pytest.mark.parametrize(
        ("status", "reason"), [(404, "Resource not found"), (403, "don't have permission")]
    )
    def test_refused(self, kaggle, status, reason, capfd):
        with answering(status):
            message = refusal("kaggle:owner/dataset")
        assert reason in message
        assert "the form is kaggle:owner/dataset" in message
        assert capfd.readouterr().out == ""

    def test_package_missing(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "kagglehub", None)
        assert "pip install 'brainseg[kaggle]'" in refusal("kaggle:owner/dataset")


def read_all(path):
    """The reasons for what cannot be read."""
    reasons = []
    try:
        with open_source(str(path)) as source:
            for file in source.files():
                try:
                    source.read(file.path)
                except UnreadableFileError as error:
                    reasons.append(str(error))
    except UserError as error:
        reasons.append(str(error))
    return reasons


def filled(uri):
    bucket, prefix = parse_s3_uri(uri)
    for name, data in ({"kaggle_3m/": b""} | FILES).items():
        connect().put_object(bucket, prefix + name, io.BytesIO(data), len(data))
    return uri


def set_policy(bucket, *statements):
    policy = {
        "Version": "2012-10-17",
        "Statement": [{"Principal": "*", **statement} for statement in statements],
    }
    connect().set_bucket_policy(bucket, json.dumps(policy))


def come_without_keys(source):
    # the keys of the tests are the server's own, which no policy binds
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ["AWS_ENDPOINT_URL"]
    parts = urlsplit(endpoint)
    source.__dict__["_client"] = Minio(
        parts.netloc, secure=parts.scheme == "https", region="us-east-1"
    )


@pytest.fixture
def kaggle(monkeypatch, tmp_path):
    """Kagglehub talks to port 7777 of this machine; nobody listens there unless the test does."""
    pytest.importorskip("kagglehub")
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection(("localhost", 7777), timeout=1).close()
        pytest.skip("port 7777, which kagglehub's test environment means, is in use")
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "TEST")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))


@contextlib.contextmanager
def answering(status):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("localhost", 7777), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

import http.server
import io
import json
import os
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from minio import Minio

from components.shared.errors import UserError
from components.shared.reading.sources.opening import open_source
from components.shared.reading.sources.source import UnreadableFileError
from components.shared.storage.s3 import connect, parse_s3_uri
from tests.components.shared.reading.sources.opened import FILES, check_contents, problems, refusal
from tests.components.shared.reading.sources.test_archive import write_zip


def test_bucket(s3_store_uri):
    with open_source(filled(s3_store_uri)) as source:
        check_contents(source)
        assert source.name == "prefix"


@pytest.mark.parametrize("end", ["", "/lgg.zip"])
def test_an_archive_in_a_bucket_is_read_in_place(s3_store_uri, tmp_path, end):
    bucket, prefix = parse_s3_uri(s3_store_uri)
    connect().fput_object(bucket, f"{prefix}lgg.zip", write_zip(tmp_path / "lgg.zip"))
    with open_source(f"{s3_store_uri}{end}") as source:
        check_contents(source)
        assert (source.name, source.uri) == ("lgg", f"{s3_store_uri}/lgg.zip")


def test_an_archive_that_is_not_in_the_bucket(s3_store_uri):
    assert "has no such object; correct the URI" in refusal(f"{s3_store_uri}/lgg.zip")


class TestStub:
    """The same without an S3 server, from a stub that holds one object."""

    def test_an_archive_is_read_in_ranges(self, objects, tmp_path):
        noise = {"noise.bin": os.urandom(3 * 2**20)}
        path = write_zip(tmp_path / "lgg.zip", noise | FILES)
        objects["/bucket/raw/lgg.zip"] = Path(path).read_bytes()
        with open_source("s3://bucket/raw") as source:
            assert source.read("kaggle_3m/data.csv") == b"Patient\n"
            assert len(source.files()) == 3
        read = [request["Range"] for request in objects.requests if "Range" in request]
        assert 1 < len(read) < 6

    def test_the_requester_pays(self, objects, monkeypatch):
        objects["/bucket/raw/a.tif"] = b"one"
        monkeypatch.setenv("AWS_REQUEST_PAYER", "requester")
        with open_source("s3://bucket/raw") as source:
            assert source.read("a.tif") == b"one"
        for request in objects.requests:
            assert request["x-amz-request-payer"] == "requester"
            assert "x-amz-request-payer" in request["Authorization"]  # signed

    @pytest.fixture
    def objects(self, monkeypatch):
        objects = _Objects()
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Stub)
        server.objects = objects
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        yield objects
        server.shutdown()
        server.server_close()


class _Objects(dict):
    """Objects by path, and the headers of all requests."""

    def __init__(self):
        self.requests = []


class _Stub(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        objects, url = self.server.objects, urlsplit(self.path)
        objects.requests.append(self.headers)
        if url.query:
            entries = "".join(
                f"<Contents><Key>{path.removeprefix('/bucket/')}</Key><Size>{len(data)}</Size>"
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                for path, data in objects.items()
            )
            head = "<Name>bucket</Name><IsTruncated>false</IsTruncated>"
            self.answer(200, f"<ListBucketResult>{head}{entries}</ListBucketResult>".encode())
        elif "Range" in self.headers:
            whole = objects[url.path]
            first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
            place = f"bytes {first}-{last}/{len(whole)}"
            self.answer(206, whole[first : last + 1], ETag='"1"', Content_Range=place)
        else:
            self.answer(200, objects[url.path], ETag='"1"')

    def answer(self, status, data, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def test_an_object_that_is_gone_is_the_files_fault(s3_store_uri):
    with open_source(filled(s3_store_uri)) as source:
        source.files()
        bucket, prefix = parse_s3_uri(s3_store_uri)
        connect().remove_object(bucket, prefix + "kaggle_3m/data.csv")
        with pytest.raises(UnreadableFileError, match="gone from the bucket"):
            source.read("kaggle_3m/data.csv")
        assert source.read("kaggle_3m/TCGA_CS_0001_19990101/a.tif") == b"one"


def test_an_object_that_is_denied_is_the_files_fault(s3_store_uri):
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


def test_what_is_wrong_with_all_objects_is_the_sources_fault(s3_store_uri, monkeypatch):
    elsewhere = s3_store_uri.replace("brainseg-test", "brainseg-none")
    assert "does not exist; create it" in read_refusal(elsewhere)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "secret key is wrong" in read_refusal(s3_store_uri)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    assert "that the server is up" in read_refusal(s3_store_uri)


def test_keys_that_cannot_be_printed_are_told(s3_store_uri):
    bucket, prefix = parse_s3_uri(s3_store_uri)
    connect().put_object(bucket, prefix + "a\nerror: lost/a.tif", io.BytesIO(b"x"), 1)
    with open_source(s3_store_uri) as source:
        reason = "its name holds control characters or is not UTF-8"
        assert problems(source) == {r"a\nerror: lost/a.tif": reason}


def test_missing_bucket(s3_store_uri):
    assert "bucket 'no-such-bucket' does not exist" in refusal("s3://no-such-bucket/data")


def test_wrong_keys(s3_store_uri, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "secret key is wrong" in refusal(s3_store_uri)


def test_endpoint_down(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert "check AWS_ENDPOINT_URL and that the server is up" in refusal("s3://bucket/data")


def read_refusal(uri):
    with pytest.raises(UserError) as raised, open_source(uri) as source:
        source.read("kaggle_3m/data.csv")
    return str(raised.value)


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


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

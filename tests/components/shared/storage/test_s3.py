import datetime
import ipaddress
import os
import socket

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from components.shared.errors import OutageError, UserError
from components.shared.storage import s3
from components.shared.storage.s3 import parse_s3_uri
from components.shared.storage.store import open_store


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("s3://bucket", ("bucket", "")),
        ("s3://bucket/", ("bucket", "")),
        ("s3://bucket/a/b", ("bucket", "a/b/")),
        ("s3://bucket/a/b/", ("bucket", "a/b/")),
    ],
)
def test_splits_a_uri_into_bucket_and_prefix(uri, parts):
    assert parse_s3_uri(uri) == parts


@pytest.mark.parametrize("uri", ["s3://", "s3:///prefix", "s3://no spaces/x", "s3://-/x"])
def test_refuses_a_uri_without_a_good_bucket(uri):
    with pytest.raises(UserError, match="the form is s3://bucket/prefix"):
        parse_s3_uri(uri)


@pytest.mark.parametrize("endpoint", ["localhost:9000", "http://", "ftp://host", "http://h/path"])
def test_refuses_an_endpoint_that_is_no_address(monkeypatch, endpoint):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    with pytest.raises(UserError, match=r"endpoint .* is not understood.*https://host:port"):
        open_store("s3://bucket")


def test_the_endpoint_for_s3_wins_over_the_general_one(monkeypatch, silent_port):
    point_at(monkeypatch, f"http://127.0.0.1:{silent_port}")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert f":{silent_port};" in refusal()


def test_a_missing_bucket(s3_store_uri):
    store = open_store(s3_store_uri.replace("brainseg-test", "brainseg-none"))
    for use in (store.exists, store.read, lambda key: store.write(key, b"1"), keys_of(store)):
        with pytest.raises(UserError, match=r"bucket 'brainseg-none-.*' does not exist; create it"):
            use("one")


def test_a_wrong_secret_key(s3_store_uri, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    store = open_store(s3_store_uri)
    for use in (store.exists, lambda key: store.write(key, b"1")):
        with pytest.raises(UserError, match="check AWS_SECRET_ACCESS_KEY"):
            use("one")


def test_an_unknown_access_key(s3_store_uri, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    with pytest.raises(UserError, match="the access key is unknown; check AWS_ACCESS_KEY_ID"):
        open_store(s3_store_uri).read("one")


def test_an_endpoint_that_is_down(monkeypatch):
    point_at(monkeypatch, "http://127.0.0.1:1")
    assert "no answer from http://127.0.0.1:1; check AWS_ENDPOINT_URL" in refusal(OutageError)


def test_a_name_that_is_not_known(monkeypatch):
    point_at(monkeypatch, "http://no-such-host.invalid:9000")
    assert "no answer from http://no-such-host.invalid:9000" in refusal(OutageError)


def test_an_endpoint_that_swallows_packets_is_tried_twice_for_four_seconds(monkeypatch, full_port):
    assert s3._CONNECT_TIMEOUT_S * (1 + s3._retries().connect) < 10
    monkeypatch.setattr(s3, "_CONNECT_TIMEOUT_S", 0.1)
    point_at(monkeypatch, f"http://127.0.0.1:{full_port}")
    assert "ConnectTimeoutError" in refusal(OutageError)


def test_https_towards_a_server_of_http(monkeypatch, web_server):
    point_at(monkeypatch, web_server().replace("http:", "https:"))
    assert "does not speak https; check http or https in AWS_ENDPOINT_URL" in refusal()


def test_http_towards_a_server_of_https(monkeypatch, web_server, certificate):
    point_at(monkeypatch, web_server(certificate).replace("https:", "http:"))
    assert "check AWS_ENDPOINT_URL" in refusal()


def test_a_certificate_of_an_unknown_authority(monkeypatch, web_server, certificate):
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    point_at(monkeypatch, web_server(certificate))
    assert "is not trusted; name the file of its authority in AWS_CA_BUNDLE" in refusal(UserError)


def test_the_authority_may_be_named(monkeypatch, web_server, certificate):
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    point_at(monkeypatch, web_server(certificate))
    assert "does not answer as S3 does" in refusal()  # past the handshake


def test_a_missing_file_of_authorities(monkeypatch):
    monkeypatch.setenv("AWS_CA_BUNDLE", "/no/such/file")
    with pytest.raises(UserError, match="AWS_CA_BUNDLE names '/no/such/file', where there is no"):
        open_store("s3://bucket")


@pytest.mark.parametrize("use", ["write", "read", "exists", "keys"])
@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (404, "NoSuchBucket", "bucket 'bucket' does not exist"),
        (400, "ExpiredToken", "the session token has expired"),
        (403, "RequestTimeTooSkewed", "this machine's clock is wrong"),
        (400, "AuthorizationHeaderMalformed", "in another region; set AWS_REGION to eu-west-1"),
        (301, "PermanentRedirect", "in another region; set AWS_REGION to eu-west-1"),
    ],
)
def test_no_request_hides_why_it_is_refused(monkeypatch, web_server, use, status, code, told):
    body = f"<Error><Code>{code}</Code></Error>".encode()
    region = {"x-amz-bucket-region": "eu-west-1"}
    point_at(monkeypatch, web_server(answer=(status, "application/xml", body), **region))
    store = open_store("s3://bucket/prefix")
    uses = {"write": lambda key: store.write(key, b"1"), "keys": keys_of(store)}
    with pytest.raises(UserError, match=told):
        uses.get(use, getattr(store, use))("one")


def test_the_right_region_is_named_by_the_message(monkeypatch, web_server):
    message = "The authorization header is malformed; the region 'a' is wrong; expecting 'eu-x-1'"
    code = "AuthorizationHeaderMalformed"
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    point_at(monkeypatch, web_server(answer=(400, "application/xml", body)))
    assert "set AWS_REGION to eu-x-1" in refusal()


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("User: a is not authorized to perform: kms:Decrypt", "allow kms:Decrypt and kms:Generate"),
        ("Access Denied because object protected by object lock.", "choose a bucket without"),
        ("Access Denied", "a source whose requester pays needs AWS_REQUEST_PAYER=requester"),
    ],
)
def test_a_denial_is_explained_by_its_message(monkeypatch, web_server, message, told):
    body = f"<Error><Code>AccessDenied</Code><Message>{message}</Message></Error>".encode()
    point_at(monkeypatch, web_server(answer=(403, "application/xml", body)))
    assert told in refusal()


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (507, "InsufficientStorage", "the storage is full; free space or choose another store"),
        (507, "XMinioStorageFull", "the storage is full"),
        (403, "AccessDenied", "access to bucket 'bucket' is denied; check AWS_ACCESS_KEY_ID"),
        (400, "ExpiredToken", "the session token has expired; renew AWS_SESSION_TOKEN"),
        (400, "AuthorizationHeaderMalformed", "in another region; set AWS_REGION to the one of"),
        (400, "KMS.DisabledException", "the KMS key of bucket 'bucket' cannot be used"),
        (400, "ObjectLocked", "the object lock of bucket 'bucket' refuses this"),
        (403, "RequestTimeTooSkewed", "this machine's clock is wrong"),
        (418, "Teapot", "the server answered Teapot: I am told"),
        (503, "SlowDown", "keeps failing (too many 503 error responses); look at the server's"),
    ],
)
def test_what_the_server_answers_is_explained(monkeypatch, web_server, status, code, told):
    body = f"<Error><Code>{code}</Code><Message>I am told</Message></Error>".encode()
    point_at(monkeypatch, web_server(answer=(status, "application/xml", body)))
    assert told in refusal(OutageError if status == 503 else UserError)


def test_no_credentials_at_all(monkeypatch, tmp_path, full_port):
    point_at(monkeypatch, "http://127.0.0.1:1")
    # in place of the cloud's metadata service, which tests leave alone
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{full_port}/role")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    message = refusal()
    assert "no S3 credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in message
    assert "role: no answer" in message


def test_credentials_from_the_file(monkeypatch, tmp_path, s3_store_uri):
    file = tmp_path / "credentials"
    file.write_text(
        "[default]\n"
        f"aws_access_key_id = {os.environ['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {os.environ['AWS_SECRET_ACCESS_KEY']}\n"
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    store = open_store(s3_store_uri)
    store.write("one", b"1")
    assert store.read("one") == b"1"


def refusal(kind=None):
    with pytest.raises(UserError) as caught:
        open_store("s3://bucket/prefix").write("one", b"1")
    assert kind in (None, type(caught.value))
    return str(caught.value)


def keys_of(store):
    return lambda _: list(store.keys("a/"))


def point_at(monkeypatch, endpoint):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.fixture
def silent_port():
    """A port at which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield listener.getsockname()[1]


@pytest.fixture
def full_port():
    """A port whose queue is full: the system drops what asks for a connection."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A key and a certificate for 127.0.0.1, signed by itself, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    form = serialization.PrivateFormat.PKCS8
    pem = serialization.Encoding.PEM
    file.write_bytes(
        signed.public_bytes(pem) + key.private_bytes(pem, form, serialization.NoEncryption())
    )
    return file

"""Connection to S3-compatible storage, set up by the standard `AWS_*` variables."""

import contextlib
import os
from collections.abc import Iterator
from urllib.parse import urlsplit

import certifi
import urllib3
from minio import Minio
from minio.credentials.providers import (
    AWSConfigProvider,
    ChainedProvider,
    EnvAWSProvider,
    IamAwsProvider,
)
from minio.error import S3Error

from components.shared.errors import UserError

_CONNECT_TIMEOUT_S = 5
_READ_TIMEOUT_S = 60
_RETRIES = 3


def parse_s3_uri(uri: str) -> tuple[str, str]:
    """Splits `s3://bucket/some/prefix` into `bucket` and `some/prefix/` (or an empty prefix).

    Raises:
        UserError: If no bucket is named.
    """
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise UserError(f"{uri!r} names no bucket; the form is s3://bucket/prefix")
    prefix = prefix.strip("/")
    return bucket, f"{prefix}/" if prefix else ""


def connect() -> Minio:
    """Makes a client from the environment.

    Read are `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL` (default: AWS itself),
    `AWS_REGION` (or `AWS_DEFAULT_REGION`), and for credentials in this order
    `AWS_ACCESS_KEY_ID` with `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`, the AWS
    credentials file, and the machine's, container's or web-identity role.

    Raises:
        UserError: If the endpoint is not a URL.
    """
    endpoint = _endpoint()
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UserError(f"S3 endpoint {endpoint!r} is not a URL; the form is https://host:port")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return Minio(
        parts.netloc,
        secure=parts.scheme == "https",
        region=region or "us-east-1",
        http_client=_http_client(_READ_TIMEOUT_S, _RETRIES),
        credentials=ChainedProvider(
            [
                EnvAWSProvider(),
                AWSConfigProvider(),
                IamAwsProvider(http_client=_http_client(_CONNECT_TIMEOUT_S, retries=0)),
            ]
        ),
    )


def _endpoint() -> str:
    return (
        os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
        or "https://s3.amazonaws.com"
    )


def _http_client(read_timeout_s: float, retries: int) -> urllib3.PoolManager:
    return urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=_CONNECT_TIMEOUT_S, read=read_timeout_s),
        maxsize=16,
        cert_reqs="CERT_REQUIRED",
        ca_certs=os.environ.get("AWS_CA_BUNDLE")
        or os.environ.get("SSL_CERT_FILE")
        or certifi.where(),
        retries=urllib3.Retry(
            total=retries, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]
        ),
    )


@contextlib.contextmanager
def explain_s3_errors(what: str, bucket: str) -> Iterator[None]:
    """Turns a refusal of the S3 service into a `UserError` that says what to do.

    Args:
        what: The subject of the message, e.g. `store s3://bucket/prefix`.
        bucket: The bucket in use.
    """
    try:
        yield
    except S3Error as error:
        raise UserError(f"{what}: {_advice(error, bucket)}") from error
    except urllib3.exceptions.HTTPError as error:
        raise UserError(
            f"{what}: no answer from {_endpoint()}; check AWS_ENDPOINT_URL and that the "
            f"server is up ({type(error).__name__})"
        ) from error
    except ValueError as error:
        # minio's credential providers and bucket-name check raise plain ValueErrors
        raise UserError(
            f"{what}: {error}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run "
            "where a role gives credentials"
        ) from error


def _advice(error: S3Error, bucket: str) -> str:
    advice = {
        "NoSuchBucket": f"bucket {bucket!r} does not exist; create it or correct the URI",
        "AccessDenied": f"these keys may not use bucket {bucket!r}; check its policy",
        "InvalidAccessKeyId": "the access key is unknown; check AWS_ACCESS_KEY_ID",
        "SignatureDoesNotMatch": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY",
        "ExpiredToken": "the session token has expired; renew AWS_SESSION_TOKEN",
        "XMinioStorageFull": "the storage is full; free space or choose another store",
    }
    return advice.get(error.code or "", f"the server answered {error.code}: {error.message}")

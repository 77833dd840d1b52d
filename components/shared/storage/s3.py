"""Connection to S3-compatible storage, set up by the standard `AWS_*` variables."""

import configparser
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import certifi
import urllib3
from minio import Minio
from minio.credentials.credentials import Credentials
from minio.credentials.providers import (
    AWSConfigProvider,
    EnvAWSProvider,
    IamAwsProvider,
    Provider,
)
from minio.error import MinioException, S3Error
from minio.helpers import check_bucket_name

from components.shared.errors import OutageError, UserError

_CONNECT_TIMEOUT_S = 4.0  # tried twice: a dead endpoint is told within ten seconds
_READ_TIMEOUT_S = 60.0
_ROLE_TIMEOUT_S = 2.0  # the metadata service is on the same machine


def parse_s3_uri(uri: str) -> tuple[str, str]:
    """Splits `s3://bucket/some/prefix` into `bucket` and `some/prefix/` (or an empty prefix).

    Raises:
        UserError: If no bucket is named, or with a name that S3 does not allow.
    """
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise UserError(f"{uri!r} names no bucket; the form is s3://bucket/prefix")
    try:
        check_bucket_name(bucket)
    except ValueError as error:
        raise UserError(f"{uri!r}: {error}; the form is s3://bucket/prefix") from error
    prefix = prefix.strip("/")
    return bucket, f"{prefix}/" if prefix else ""


def connect() -> Minio:
    """Makes a client from the environment.

    Read are `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL` (default: AWS itself),
    `AWS_REGION` (or `AWS_DEFAULT_REGION`), and for credentials in this order
    `AWS_ACCESS_KEY_ID` with `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`, the AWS
    credentials file, and the machine's, container's or web-identity role.

    Raises:
        UserError: If the endpoint is not a URL, or a file of certificates is missing.
    """
    endpoint = _endpoint()
    parts = urlsplit(endpoint)
    try:
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/"):
            raise ValueError("not an http or https address without a path")
        return Minio(
            parts.netloc,
            secure=parts.scheme == "https",
            region=os.environ.get("AWS_REGION")
            or os.environ.get("AWS_DEFAULT_REGION")
            or "us-east-1",
            http_client=_http_client(_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S, _retries()),
            credentials=_EveryProvider(),
        )
    except ValueError as error:
        raise UserError(
            f"S3 endpoint {endpoint!r} is not understood ({error}); the form is "
            "https://host:port, in AWS_ENDPOINT_URL"
        ) from error


def _endpoint() -> str:
    return (
        os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
        or "https://s3.amazonaws.com"
    )


def _retries() -> urllib3.Retry:
    return urllib3.Retry(
        total=3, connect=1, read=1, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]
    )


def _http_client(connect_s: float, read_s: float, retries: urllib3.Retry) -> urllib3.PoolManager:
    return urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=connect_s, read=read_s),
        maxsize=16,
        cert_reqs="CERT_REQUIRED",
        ca_certs=_authorities(),
        retries=retries,
    )


def _authorities() -> str:
    for variable in ("AWS_CA_BUNDLE", "SSL_CERT_FILE"):
        file = os.environ.get(variable)
        if file and not Path(file).is_file():
            raise UserError(f"{variable} names {file!r}, where there is no file; mend or unset it")
        if file:
            return file
    return certifi.where()


class _EveryProvider(Provider):
    """Asks one source of credentials after the other; minio's own chain hides why none works."""

    def __init__(self) -> None:
        role_client = _http_client(_ROLE_TIMEOUT_S, 5.0, urllib3.Retry(total=0))
        self._providers = {
            "environment": EnvAWSProvider(),
            "credentials file": AWSConfigProvider(),
            "role": IamAwsProvider(http_client=role_client),
        }

    def retrieve(self) -> Credentials:
        reasons = []
        for name, provider in self._providers.items():
            try:
                return provider.retrieve()
            except urllib3.exceptions.HTTPError:
                reasons.append(f"{name}: no answer")
            except (ValueError, KeyError, OSError, configparser.Error) as error:
                reasons.append(f"{name}: {error}")
        raise UserError(
            "no S3 credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a "
            f"role gives them (tried {'; '.join(reasons)})"
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
    except MinioException as error:
        raise UserError(
            f"{what}: {_endpoint()} does not answer as S3 does; check host, port and http or "
            f"https in AWS_ENDPOINT_URL ({error})"
        ) from error
    except urllib3.exceptions.HTTPError as error:
        raise _connection_error(what, error) from error


def missing_bucket(bucket: str) -> str:
    """Returns the message about a missing bucket."""
    return f"bucket {bucket!r} does not exist; create it or correct the URI"


def _advice(error: S3Error, bucket: str) -> str:
    unknown_key = "the access key is unknown; check AWS_ACCESS_KEY_ID"
    full = "the storage is full; free space or choose another store"
    region = "the bucket is in another region; set AWS_REGION to it"
    advice = {
        "NoSuchBucket": missing_bucket(bucket),
        "AccessDenied": f"access to bucket {bucket!r} is denied; check AWS_ACCESS_KEY_ID, "
        "AWS_SECRET_ACCESS_KEY and the bucket's policy",
        "InvalidAccessKeyId": unknown_key,
        "XAdminUserNotFound": unknown_key,  # versitygw
        "SignatureDoesNotMatch": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY",
        "ExpiredToken": "the session token has expired; renew AWS_SESSION_TOKEN",
        "AuthorizationHeaderMalformed": region,
        "PermanentRedirect": region,
        "RequestTimeTooSkewed": "this machine's clock is wrong; set it",
        "XMinioStorageFull": full,
        "XMinioAdminBucketQuotaExceeded": full,
        "InsufficientStorage": full,  # versitygw
        "QuotaExceeded": full,  # Ceph
    }
    return advice.get(error.code or "", f"the server answered {error.code}: {error.message}")


def _connection_error(what: str, error: urllib3.exceptions.HTTPError) -> UserError:
    reason = getattr(error, "reason", None) or error
    if "CERTIFICATE_VERIFY_FAILED" in str(reason):
        return UserError(
            f"{what}: the certificate of {_endpoint()} is not trusted; name the file of its "
            "authority in AWS_CA_BUNDLE"
        )
    if isinstance(reason, urllib3.exceptions.SSLError):
        return UserError(
            f"{what}: {_endpoint()} does not speak https; check http or https in AWS_ENDPOINT_URL"
        )
    if isinstance(reason, urllib3.exceptions.ResponseError):
        return OutageError(
            f"{what}: {_endpoint()} keeps failing ({reason}); look at the server's log and disk"
        )
    return OutageError(
        f"{what}: no answer from {_endpoint()}; check AWS_ENDPOINT_URL and that the server is up "
        f"({type(reason).__name__})"
    )

"""Connection to S3-compatible storage, set up by the standard `AWS_*` variables."""

import configparser
import contextlib
import os
import re
from collections.abc import Iterator
from urllib.parse import urlsplit
from xml.etree import ElementTree

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
from components.shared.storage.http import ForeignAnswerError, Http, S3Http, proxy_of

_CONNECT_TIMEOUT_S = 4.0  # tried twice: a dead endpoint is reported within ten seconds
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
    """Returns a client that is set up by the environment.

    It reads `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL` (default: AWS itself), `AWS_REGION` (or
    `AWS_DEFAULT_REGION`) and the proxy variables. Credentials are, in this order,
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
            http_client=S3Http(_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S, _retries()),
            credentials=_EveryProvider(),
        )
    except ValueError as error:
        raise UserError(
            f"S3 endpoint {endpoint!r} is not understood ({error}); the form is "
            "https://host:port, in AWS_ENDPOINT_URL"
        ) from error


def payer() -> dict[str, str | list[str] | tuple[str]]:
    """Headers of requests for which the requester pays, if `AWS_REQUEST_PAYER` says so."""
    named = os.environ.get("AWS_REQUEST_PAYER")
    return {"x-amz-request-payer": named} if named else {}


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


class _EveryProvider(Provider):
    """Asks one source of credentials after the other; minio's own chain hides why none works."""

    def __init__(self) -> None:
        role_client = Http(_ROLE_TIMEOUT_S, 5.0, urllib3.Retry(total=0))
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
    """Turns a refusal of the S3 service into a `UserError` with advice.

    Args:
        what: The subject of the message, e.g. `store s3://bucket/prefix`.
        bucket: The bucket in use.
    """
    try:
        yield
    except S3Error as error:
        raise UserError(f"{what}: {_advice(error, bucket)}") from error
    except ForeignAnswerError as error:
        raise UserError(f"{what}: {_not_s3(str(error))}") from error
    except (MinioException, ElementTree.ParseError, ValueError) as error:  # of minio's parsers
        raise UserError(f"{what}: {_not_s3('its answer is malformed')}") from error
    except urllib3.exceptions.HTTPError as error:
        raise _connection_error(what, error) from error


def _not_s3(reason: str) -> str:
    return (
        f"{_named_endpoint()} does not answer as S3 does ({reason}); check host, port and http or "
        "https in AWS_ENDPOINT_URL"
    )


def _named_endpoint() -> str:
    way = ", through the proxy that HTTPS_PROXY or HTTP_PROXY names,"
    return _endpoint() + (way if proxy_of(_endpoint()) else "")


def _advice(error: S3Error, bucket: str) -> str:
    code, message = error.code or "", error.message or ""
    if not code:
        return _not_s3("it answers with other XML")
    if code.startswith("KMS.") or "kms:" in message.lower():
        return (
            f"the KMS key of bucket {bucket!r} cannot be used; allow kms:Decrypt and "
            f"kms:GenerateDataKey on it ({message})"
        )
    if code == "ObjectLocked" or "object lock" in message.lower():
        return (
            f"the object lock of bucket {bucket!r} refuses this; choose a bucket without "
            f"retention, and https in AWS_ENDPOINT_URL ({message})"
        )
    expected = re.search(r"expecting '([\w-]+)'", message)
    region = error.response.headers.get("x-amz-bucket-region") or (expected and expected[1])
    for codes, advice in _ADVICE.items():
        if code in codes.split():
            return advice.format(bucket=repr(bucket), region=region or "the one of the bucket")
    return f"the server answered {code}: {message}"


# Codes of AWS and of the services that are named.
_ADVICE = {
    "NoSuchBucket": "bucket {bucket} does not exist; create it or correct the URI",
    "NoSuchKey": "bucket {bucket} has no such object; correct the URI",
    "AccessDenied AllAccessDisabled": "access to bucket {bucket} is denied; check "
    "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, the bucket's policy and the rights to its KMS key; "
    "a source whose requester pays needs AWS_REQUEST_PAYER=requester",
    # the latter versitygw
    "InvalidAccessKeyId XAdminUserNotFound": "the access key is unknown; check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken InvalidToken TokenRefreshRequired": "the session token has expired; renew "
    "AWS_SESSION_TOKEN",
    "AuthorizationHeaderMalformed PermanentRedirect TemporaryRedirect "
    "IllegalLocationConstraintException": "bucket {bucket} is in another region; set AWS_REGION to "
    "{region}",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it",
    # MinIO, versitygw, Ceph
    "XMinioStorageFull XMinioAdminBucketQuotaExceeded InsufficientStorage QuotaExceeded": "the "
    "storage is full; free space or choose another store",
}


def _connection_error(what: str, error: urllib3.exceptions.HTTPError) -> UserError:
    reason, endpoint = getattr(error, "reason", None) or error, _named_endpoint()
    if "CERTIFICATE_VERIFY_FAILED" in str(reason):
        return UserError(
            f"{what}: the certificate of {endpoint} is not trusted; name the file of its "
            "authority in AWS_CA_BUNDLE"
        )
    if isinstance(reason, urllib3.exceptions.ProxyError):
        return OutageError(
            f"{what}: no answer from {endpoint}; correct that variable, or name the host in "
            f"NO_PROXY ({reason.original_error})"
        )
    if isinstance(reason, urllib3.exceptions.SSLError):
        return UserError(
            f"{what}: {endpoint} does not speak https; check http or https in AWS_ENDPOINT_URL"
        )
    if isinstance(reason, urllib3.exceptions.ResponseError):
        return OutageError(
            f"{what}: {endpoint} keeps failing ({reason}); look at the server's log and disk"
        )
    return OutageError(
        f"{what}: no answer from {endpoint}; check AWS_ENDPOINT_URL and that the server is up "
        f"({type(reason).__name__})"
    )

import os
import uuid
from unittest import mock

import pytest

from components.shared.errors import UserError
from components.shared.s3 import connect, explain_s3_errors


@pytest.fixture
def s3_store_uri():
    """A store in a fresh bucket of the S3 server that the environment names; skips without one."""
    if not (os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")):
        pytest.skip("no S3 server: AWS_ENDPOINT_URL is not set")
    environment = dict(os.environ)
    client, bucket = connect(), f"brainseg-test-{uuid.uuid4().hex[:12]}"
    try:
        with explain_s3_errors("S3", bucket):
            client.make_bucket(bucket)
    except UserError as error:
        pytest.skip(f"no S3 server: {error}")
    yield f"s3://{bucket}/some/prefix"
    with mock.patch.dict(os.environ, environment):  # a test may have changed the keys
        _remove(client, bucket)


def _remove(client, bucket):
    for item in client.list_objects(bucket, recursive=True):
        client.remove_object(bucket, item.object_name)
    client.remove_bucket(bucket)

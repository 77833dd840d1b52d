import pytest

from pipelines.kubeflow.launcher import end_of_log

FATAL = "F1130 18:20:33.123456      28 main.go:60] failed to execute component: "
UPLOAD = (
    'failed to upload output artifact "manifest" to remote storage URI "minio://mlpipeline/v2": '
    "uploadFile(): unable to complete copying: failed to close Writer for bucket: blob (code=x): "
)
S3 = "operation error S3: PutObject, https response error StatusCode: {}, api error {}: words"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (UPLOAD + S3.format(404, "NoSuchBucket"), "artifact bucket is gone: create it"),
        (UPLOAD + S3.format(400, "AuthorizationHeaderMalformed"), "region of KFP's artifact"),
        (UPLOAD + S3.format(403, "SignatureDoesNotMatch"), "S3 refuses the launcher's key"),
        (UPLOAD + S3.format(403, "AccessDenied"), "mlpipeline-minio-artifact"),
        (UPLOAD + S3.format(507, "XMinioStorageFull"), "bucket is full"),
        (
            'Failed to open bucket "x": failed to get Bucket credentials from secret name="y"',
            "copy it from Kubeflow's namespace",
        ),
        ("failed to pre-publish Pod info to ML Metadata: rpc error", "metadata-grpc-service"),
        (UPLOAD + "dial tcp: lookup seaweedfs: no such host", "endpoint in providers"),
        (UPLOAD + "tls: x509: certificate signed by unknown authority", "an authority"),
    ],
)
def test_an_error_of_the_launcher_is_told_with_its_usual_cause(error, cause):
    told = end_of_log(f"train: epoch 1\n{FATAL}{error}\n")
    assert told.startswith("its log ends with: failed to execute component: ")
    assert cause in told.partition(". Usually ")[2]
    assert "epoch 1" not in told


def test_the_cause_of_a_long_error_is_shown_too():
    told = end_of_log(FATAL + UPLOAD + "x" * 900 + "api error NoSuchBucket: gone")
    assert len(told) < 800
    assert "api error NoSuchBucket: gone" in told


def test_the_last_lines_of_another_log_are_shown_as_they_are():
    text = "one\ntwo\n\nthree: connection refused\nSegmentation fault\n"
    assert end_of_log(text) == (
        "its log ends with: two | three: connection refused | Segmentation fault"
    )


def test_an_empty_log_is_told():
    assert end_of_log("\n") == "its log is empty"

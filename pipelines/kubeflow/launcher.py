"""Errors of Kubeflow's launcher, which stand in the log of a step's pod alone.

The launcher runs in the step's container and moves KFP's own artifacts before and after our code
(backend/src/v2/component/launcher_v2.go and objectstore/object_store.go at 2.17.0). It leaves no
termination message, and its causes are those of S3, gRPC and Go.
"""

import re

_ERROR = re.compile(r"^[EF]\d{4} [\d:.]+ +\d+ [\w.-]+:\d+\] ")  # a line of glog
_LINES = 3  # of another log
_START, _END = 120, 280  # characters of a long line: Go wraps the cause last

_CONFIG = "the ConfigMap kfp-launcher in the namespace of runs"
_USUALLY = (
    (
        "NoSuchBucket",
        f"KFP's artifact bucket is gone: create it, or correct defaultPipelineRoot in {_CONFIG}",
    ),
    (
        "AuthorizationHeaderMalformed|PermanentRedirect|BucketRegionError|[Rr]egion",
        f"the region of KFP's artifact bucket is wrong: set it in providers of {_CONFIG}; without "
        "one the launcher uses minio",
    ),
    (
        "failed to get Bucket credentials from secret",
        "the Secret with the key of KFP's artifact bucket is missing or lacks its keys: copy it "
        f"from Kubeflow's namespace, or set providers in {_CONFIG}; `brainseg doctor --cluster` "
        "checks this",
    ),
    (
        "ExpiredToken|RequestTimeTooSkewed",
        "the credentials have expired, or the clocks of node and S3 differ",
    ),
    (
        "AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|StatusCode: 403",
        "S3 refuses the launcher's key: compare the Secret of KFP's artifact bucket "
        f"(mlpipeline-minio-artifact, or that of {_CONFIG}) with the bucket's users and policies",
    ),
    (
        "EntityTooLarge|QuotaExceeded|StorageFull|InsufficientStorage|StatusCode: (413|507)",
        "KFP's artifact bucket is full, or a limit of it or of a proxy is too small",
    ),
    ("x509:", "the certificate is of an authority that the launcher does not know"),
    (
        "ML Metadata|MLMD",
        "KFP's service metadata-grpc-service did not answer: look at its pod and the "
        "NetworkPolicies, and retry the run on its page",
    ),
    (
        "no such host|connection refused|i/o timeout|no route to host|deadline exceeded",
        "a service of Kubeflow did not answer: look at the endpoint in providers of "
        f"{_CONFIG}, and at the NetworkPolicies",
    ),
)


def end_of_log(text: str) -> str:
    """Return the launcher's last error with its usual cause, or the last lines of another log."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [_ERROR.sub("", line) for line in lines if _ERROR.match(line)]
    last = errors[-1:] or lines[-_LINES:]
    if not last:
        return "its log is empty"
    shown = " | ".join(_shortened(line) for line in last)
    cause = next((text for pattern, text in _USUALLY if re.search(pattern, "\n".join(last))), "")
    usually = f". Usually {cause}" if errors and cause else ""
    return f"its log ends with: {shown}{usually}"


def _shortened(line: str) -> str:
    if len(line) <= _START + _END:
        return line
    return f"{line[:_START]} ... {line[-_END:]}"

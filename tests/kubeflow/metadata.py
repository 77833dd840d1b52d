"""What Kubeflow's pages of a run ask of ML Metadata: its artifacts with their types and values.

The messages are those of ml_metadata/proto/metadata_store_service.proto. `curl` sends them, as no
package of ours speaks gRPC.
"""

import struct
import subprocess
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass

from google.protobuf.empty_pb2 import Empty
from google.protobuf.unknown_fields import UnknownFieldSet

_SERVICE = "ml_metadata.MetadataStoreService"


@dataclass(frozen=True)
class Artifact:
    """An artifact of a run; `values` are what a page of metrics lists."""

    type: str
    uri: str
    values: dict


@contextmanager
def metadata_store(namespace):
    """Address of ML Metadata, which a tunnel of kubectl's leads to."""
    line = ["kubectl", "--namespace", namespace, "port-forward", "service/metadata-grpc-service"]
    tunnel = subprocess.Popen([*line, ":8080"], stdout=subprocess.PIPE, text=True)
    try:
        words = tunnel.stdout.readline()  # Forwarding from 127.0.0.1:40000 -> 8080
        assert "127.0.0.1:" in words, "kubectl has opened no port"
        yield words.split()[2]
    finally:
        tunnel.terminate()
        tunnel.wait()


def artifacts_of(address, run_id):
    """The artifacts of a run (getArtifactsFromContext in KFP's frontend/src/mlmd/MlmdUtils.ts)."""
    request = _text(1, "system.PipelineRun") + _text(2, run_id)
    (context,) = _ask(address, "GetContextByTypeAndName", request)[1]
    request = _number(1, _fields(context)[1][0])
    return list(map(_artifact, _ask(address, "GetArtifactsByContext", request)[1]))


def _artifact(message):
    fields = _fields(message)
    entries = [_fields(entry) for entry in fields[5]]
    values = {entry[1][0].decode(): _value(_fields(entry[2][0])) for entry in entries}
    return Artifact(fields[8][0].decode(), fields[3][0].decode(), values)


def _value(fields):
    if fields[2]:
        return struct.unpack("<d", struct.pack("<Q", fields[2][0]))[0]
    return fields[3][0].decode() if fields[3] else fields


def _ask(address, method, request):
    line = [
        *("curl", "--silent", "--show-error", "--http2-prior-knowledge", "--max-time", "60"),
        *("--header", "content-type: application/grpc", "--header", "te: trailers"),
        *("--data-binary", "@-", f"http://{address}/{_SERVICE}/{method}"),
    ]
    frame = b"\0" + struct.pack(">I", len(request)) + request
    done = subprocess.run(line, input=frame, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout, f"{method} was refused"
    return _fields(done.stdout[5:])


def _fields(message):
    """Number of a field -> its values."""
    unknown = Empty()
    unknown.ParseFromString(message)
    found = defaultdict(list)
    for field in UnknownFieldSet(unknown):
        found[field.field_number].append(field.data)
    return found


def _text(number, text):
    return bytes([number << 3 | 2, len(text)]) + text.encode()


def _number(number, value):
    digits = [number << 3]
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])

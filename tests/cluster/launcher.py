"""What KFP's launcher does in a step's container; runs there, with the image's own packages.

Read from backend/src/v2/component/launcher_v2.go at 2.17.0: downloads the input artifacts,
makes the folders of the outputs, replaces the placeholders, runs the command, uploads the
artifacts and publishes the output parameters. The real one has its S3 settings from a Secret,
here in `KFP_S3_*`; `AWS_ENDPOINT_URL_S3` in a step's environment would redirect it just so. It may
wait for `KFP_LINGER_S` seconds between the command and the uploads: a moment to be killed in.

    launcher.py EXECUTOR_INPUT PUBLISH_URI -- COMMAND...
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlparse

from minio import Minio


def main():
    text, publish, _, *command = sys.argv[1:]
    executor_input = json.loads(text)
    bucket = Bucket()
    for artifact in artifacts_of(executor_input["inputs"]):
        bucket.download(artifact["uri"], local_path(artifact["uri"]))
    outputs = executor_input["outputs"]
    for folder in folders(outputs):
        folder.mkdir(parents=True, exist_ok=True)
    code = subprocess.run(filled(command, executor_input, text), check=False).returncode
    if code:
        sys.exit(f"failed to execute component: exit status {code}")  # its own code is 1
    time.sleep(float(os.environ.get("KFP_LINGER_S", "0")))
    for artifact in artifacts_of(outputs):
        bucket.upload(local_path(artifact["uri"]), artifact["uri"])
    output = Path(outputs["outputFile"])
    output.write_text(json.dumps(with_files(json.loads(output.read_text()), outputs)))
    bucket.upload(output, publish)


def with_files(output, outputs):
    """collectOutputParameters: what the step wrote to a file of its own; all of ours are texts."""
    values = output.setdefault("parameterValues", {})
    for name, entry in outputs.get("parameters", {}).items():
        if name not in values:
            values[name] = Path(entry["outputFile"]).read_text()
    return output


def artifacts_of(part):
    return [entry for found in part.get("artifacts", {}).values() for entry in found["artifacts"]]


def local_path(uri):
    """LocalPathForURI: s3://bucket/key lies at /s3/bucket/key."""
    return Path(f"/s3/{uri.removeprefix('s3://')}")


def folders(outputs):
    files = [Path(each["outputFile"]) for each in outputs.get("parameters", {}).values()]
    paths = [local_path(each["uri"]) for each in artifacts_of(outputs)]
    return {path.parent for path in [*files, *paths, Path(outputs["outputFile"])]}


def filled(command, executor_input, text):
    def value(match):
        place = executor_input
        for name in re.findall(r"\.(\w+)|\['([^']+)'\]", match[1]):
            key = name[0] or name[1]
            place = place[{"output_file": "outputFile"}.get(key, key)]
        return str(place)

    return [re.sub(r"\{\{\$(\.[^}]+)\}\}", value, part.replace("{{$}}", text)) for part in command]


class Bucket:
    """KFP's own artifacts, by KFP's own settings."""

    def __init__(self):
        own = os.environ.pop("KFP_S3_ENDPOINT")
        endpoint = urlparse(os.environ.get("AWS_ENDPOINT_URL_S3", own))
        self.client = Minio(
            endpoint.netloc,
            access_key=os.environ.pop("KFP_S3_ACCESS_KEY_ID"),
            secret_key=os.environ.pop("KFP_S3_SECRET_ACCESS_KEY"),
            region="us-east-1",
            secure=endpoint.scheme == "https",
        )

    def download(self, uri, path):
        bucket, key = uri.removeprefix("s3://").split("/", 1)
        names = [found.object_name for found in self.client.list_objects(bucket, key, True)]
        for name in names:
            inner = name.removeprefix(key).lstrip("/")
            if name == key or name.startswith(f"{key}/"):
                self.client.fget_object(bucket, name, str(path / inner if inner else path))

    def upload(self, path, uri):
        bucket, key = uri.removeprefix("s3://").split("/", 1)
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                inner = file.relative_to(path).as_posix()
                self.client.fput_object(
                    bucket, key if inner == "." else f"{key}/{inner}", str(file)
                )


if __name__ == "__main__":
    main()

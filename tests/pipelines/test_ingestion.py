"""The ingestion graph: its YAML, and a whole run in real processes."""

import json

import pytest
from google.protobuf.json_format import MessageToDict

from components.ingest.ingestion import ingest_source
from components.ingest.settings import IngestSettings
from components.shared.storage.store import FolderStore
from pipelines.ingestion import ingestion


def test_the_number_of_shards_is_known_to_the_run_alone():
    spec = MessageToDict(ingestion.pipeline_spec)
    shards = spec["root"]["dag"]["tasks"]["brainseg-shards"]["inputs"]["parameters"]["shards"]
    assert shards["taskOutputParameter"]["producerTask"] == "plan-shards"


@pytest.mark.slow
def test_a_run_publishes_the_version_of_one_ingest(brainseg, tmp_path):
    run = brainseg(
        *("run", "--pipeline", "ingestion", "--source", "synthetic:6", "--preset", "demo"),
        *("--set", "ingest.shard_volumes=4", "--output", "out", "--json"),
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    one = ingest_source("synthetic:6", FolderStore(tmp_path / "one"), IngestSettings(), workers=1)
    assert json.loads(run.stdout)["dataset_id"] == one.manifest.dataset_id

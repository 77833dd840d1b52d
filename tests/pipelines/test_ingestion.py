"""The ingestion graph: its YAML, and a whole run in real processes."""

import json
import os

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


# DICOM files hold identities: nothing of a run or a prediction may hold them
SOURCE = "synthetic:10,as=dicom"
IDENTITY = b"Doe^"  # begins the names and numbers of these patients
LAYOUT = ("--set", "ingest.layout=dicom")
SMALL = (
    "train.network.image_size=32",
    "train.network.encoder_depth=3",
    "train.network.decoder_channels=[16,8,8]",
    "train.schedule.epochs=1",
    "train.schedule.validate_every_epochs=1",
    "train.compute.threads=1",
)


@pytest.fixture(scope="module")
def private(tmp_path_factory, brainseg):
    folder = tmp_path_factory.mktemp("private")
    settings = [part for change in SMALL for part in ("--set", change)]
    trained = brainseg(
        *("run", "--source", SOURCE, "--preset", "demo", "--output", "out", *LAYOUT, *settings),
        cwd=folder,
    )
    assert trained.returncode == 0, trained.stderr
    predicted = brainseg(
        *("predict", "--model", "models:/brainseg/1", "--source", SOURCE, "--output", "masks"),
        *("--set", "layout=dicom"),
        cwd=folder,
    )
    assert predicted.returncode == 0, predicted.stderr
    for name, done in (("trained", trained), ("predicted", predicted)):
        (folder / f"{name}.txt").write_text(done.stdout + done.stderr)
    return folder


@pytest.mark.slow
def test_no_file_that_a_run_leaves_holds_an_identity(private):
    found = [
        os.path.join(folder, name)
        for folder, _, names in os.walk(private)
        for name in names
        if IDENTITY in (private / folder / name).read_bytes()
    ]
    assert len(list((private / "masks").glob("*_mask.dcm"))) == 10
    # as DICOM demands, a segmentation belongs to its patient
    assert {name for name in found if not name.endswith("_mask.dcm")} == set()
    assert len(found) == 10

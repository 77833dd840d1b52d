"""Identities in DICOM files: nothing of a run or a prediction holds them."""

import os

import pytest

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
def work(tmp_path_factory, brainseg):
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
def test_no_file_that_a_run_leaves_holds_an_identity(work):
    found = [
        os.path.join(folder, name)
        for folder, _, names in os.walk(work)
        for name in names
        if IDENTITY in (work / folder / name).read_bytes()
    ]
    assert len(list((work / "masks").glob("*_mask.dcm"))) == 10
    # as DICOM demands, a segmentation belongs to its patient
    assert {name for name in found if not name.endswith("_mask.dcm")} == set()
    assert len(found) == 10

"""Which model is analyzed, and which patients it has not seen."""

import pytest

from components.radiogenomics.model import open_model
from components.shared.dataset.channels import Channels
from components.shared.dataset.manifest import make_manifest
from components.shared.errors import UserError
from components.shared.tracking.server import connect
from tests.components.radiogenomics.conftest import LEVEL


def test_the_champions_unseen_patients_are_those_of_its_test_part(world):
    found = open_model(world.settings, world.manifest, world.store)
    assert found.unseen == set(world.split.part("test"))
    assert found.uri == f"models:/{world.settings.model_name}/1"
    assert (found.split_id, found.threshold) == (world.split.split_id, 0.5)


def test_a_new_patient_is_unseen_unless_the_image_is_known(world, make_entry):
    seen = world.manifest.by_name()[world.split.part("train")[0]]
    copy = make_entry(101, image_digest=seen.image_digest)
    later = make_manifest([*world.manifest.volumes, make_entry(100), copy])
    found = open_model(world.settings, later, world.store)
    assert make_entry(100).volume in found.unseen
    assert copy.volume not in found.unseen


@pytest.mark.parametrize("tag", ["dataset_id", "split_id"])
def test_a_model_whose_patients_are_unknown_is_refused(world, threshold_model, tag):
    world.register(threshold_model(LEVEL), **{tag: "elsewhere"})
    with pytest.raises(UserError, match="the patients that it was trained on are unknown; use the"):
        open_model(world.settings, world.manifest, world.store)


def test_a_model_that_is_no_version_is_refused(world):
    name = world.settings.model_name
    for model in (f"models:/{name}/7", "models:/m-0123456789abcdef0123456789abcdef"):
        settings = world.settings.model_copy(update={"model": model})
        with pytest.raises(UserError, match=r"no registered version|cannot be loaded"):
            open_model(settings, world.manifest, world.store)


def test_an_alias_is_a_version(world):
    name = world.settings.model_name
    connect().set_registered_model_alias(name, "tried", "1")
    settings = world.settings.model_copy(update={"model": f"models:/{name}@tried"})
    assert open_model(settings, world.manifest, world.store).uri == f"models:/{name}/1"


def test_a_data_set_of_other_channels_is_refused(world):
    channels = Channels(names=("t1", "flair", "t1ce"), reference="flair")
    other = make_manifest(world.manifest.volumes, channels)
    with pytest.raises(UserError, match="and the data set has tumour in t1, flair, t1ce; use a"):
        open_model(world.settings, other, world.store)

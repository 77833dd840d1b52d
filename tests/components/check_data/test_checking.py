import uuid

import pytest

from components.check_data.checking import check_data_set
from components.register.settings import RegisterSettings
from components.shared.dataset.manifest import manifest_key
from components.shared.dataset.split import split_key
from components.shared.storage.store import open_store
from components.shared.tracking.server import connect


class Registry:
    """A registered model of its own, with versions that were decided about."""

    def __init__(self, store):
        self.client, self.name, self.store = connect(), uuid.uuid4().hex, store
        self.client.create_registered_model(self.name)

    def add(self, dataset_id, decision="promoted", split_id="5911", **tags):
        tags |= {"dataset_id": dataset_id, "split_id": split_id}
        tags |= {"decision": decision} if decision else {}
        version = self.client.create_model_version(self.name, source="s3://models/none", tags=tags)
        if decision == "promoted":
            self.client.set_registered_model_alias(self.name, "champion", version.version)

    def keep(self, dataset_id, split_id="5911"):
        self.store.write(manifest_key(dataset_id), b"{}")
        self.store.write(split_key(split_id), b"{}")

    def check(self, dataset_id, **options):
        return check_data_set(self.client, dataset_id, self.name, self.store, **options)


@pytest.fixture
def registry(any_mlflow, tmp_path):
    return Registry(open_store(str(tmp_path / "store")))


def test_without_a_champion_everything_is_new(registry):
    found = registry.check("aaaa")
    assert (found.change, found.reference_id, found.previous_split) == ("changed", "", "")
    assert found.reason == "data set aaaa is new"


def test_what_the_champion_was_trained_with_is_not_new(registry):
    registry.add("aaaa")
    found = registry.check("aaaa")
    assert found.change == "unchanged"
    assert found.reason.startswith(f"version 1 of {registry.name} (the champion) was trained with")
    assert "force=true" in found.reason
    assert found.model == f"models:/{registry.name}/1"


def test_what_a_rejected_version_was_trained_with_is_not_new_either(registry):
    registry.add("aaaa")
    registry.add("bbbb", "rejected")
    found = registry.check("bbbb")
    assert found.change == "unchanged"
    assert f"version 2 of {registry.name} (rejected)" in found.reason


def test_the_newest_of_several_versions_is_reported(registry):
    for _ in range(11):
        registry.add("aaaa", "rejected")
    assert registry.check("aaaa").model == f"models:/{registry.name}/11"


def test_a_version_that_was_not_decided_about_does_not_count(registry):
    registry.add("aaaa", decision="")  # the step was cut off before
    assert registry.check("aaaa").change == "changed"


def test_new_data_are_compared_with_the_champions_and_follow_its_split(registry):
    registry.add("aaaa", split_id="5911")
    registry.add("bbbb", "rejected", split_id="0000")
    registry.keep("aaaa", "5911")
    found = registry.check("cccc")
    assert (found.change, found.reference_id, found.previous_split) == ("changed", "aaaa", "5911")
    assert found.reason == "data set cccc is new; the champion is version 1"


def test_force_trains_on_known_data(registry):
    registry.add("aaaa")
    registry.keep("aaaa")
    found = registry.check("aaaa", force=True)
    assert (found.change, found.reference_id) == ("changed", "aaaa")
    assert "is that of version 1, but force is set" in found.reason


@pytest.mark.parametrize("lost", ["datasets/aaaa/manifest.json", "splits/5911.json"])
def test_a_champion_from_elsewhere_is_no_reference(registry, lost, caplog):
    registry.add("aaaa")
    registry.keep("aaaa")
    registry.store.delete(lost)
    found = registry.check("cccc")
    assert (found.change, found.reference_id, found.previous_split) == ("changed", "", "")
    assert "drift is not measured, and all patients are assigned as new" in caplog.text


def test_the_model_is_the_one_that_register_means():
    from components.shared.tracking.model_name import ModelName

    schemas = (kind.model_json_schema() for kind in (RegisterSettings, ModelName))
    one, other = (schema["properties"]["model_name"] for schema in schemas)
    assert one == other

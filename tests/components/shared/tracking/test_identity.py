import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.shared.errors import UserError
from components.shared.storage.store import open_store
from components.shared.tracking.identity import (
    Training,
    checkpoint_folder,
    pipeline_run_digest,
    remove_checkpoints,
)

names = st.sampled_from(["", "a", "b", "fold-1"])
given_names = st.sampled_from(["a", "b", "fold-1"])
trainings = st.builds(
    dict,
    pipeline_run=given_names,
    label=names,
    dataset_id=names,
    split_id=names,
    recipe=st.fixed_dictionaries(
        {"epochs": st.integers(1, 2), "network": st.fixed_dictionaries({"encoder": names})}
    ),
)


@given(trainings, trainings)
def test_equal_trainings_and_no_others_have_an_equal_digest(one, two):
    same = Training(**one).digest == Training(**two).digest
    assert same == (one == two)
    assert pipeline_run_digest(one["pipeline_run"]) != Training(**one).digest


def test_the_order_of_settings_makes_no_other_training():
    given = {"pipeline_run": "a", "dataset_id": "b", "split_id": "c"}
    one = Training(**given, recipe={"epochs": 1, "seed": 2})
    assert one.digest == Training(**given, recipe={"seed": 2, "epochs": 1}).digest
    assert one.digest == "e51ddfeae7b48eb3"  # other code must go on with the checkpoints of this


@pytest.mark.parametrize("label", ["a/b", "naïve", "a\nb", "a=1"])
def test_a_label_that_no_metric_can_be_named_by_is_reported(label):
    with pytest.raises(UserError, match="letters, digits, spaces"):
        Training(pipeline_run="a", label=label, dataset_id="b", split_id="c", recipe={})


def test_a_training_belongs_to_a_pipeline_run():
    with pytest.raises(UserError, match="pipeline_run is empty"):
        Training(pipeline_run="", dataset_id="b", split_id="c", recipe={})


def test_only_the_state_of_one_training_is_removed(tmp_path):
    store = open_store(str(tmp_path))
    for digest in ("0123", "01234"):
        store.write(f"{checkpoint_folder(digest)}/last.ckpt", b"state")
    remove_checkpoints(store, "0123")
    remove_checkpoints(store, "4567")
    assert list(store.keys("checkpoints/")) == ["checkpoints/01234/last.ckpt"]


def test_without_a_digest_nothing_is_removed(tmp_path):
    """In a folder `checkpoints//` is every training's."""
    store = open_store(str(tmp_path))
    store.write(f"{checkpoint_folder('0123')}/last.ckpt", b"state")
    with pytest.raises(ValueError, match="without a digest"):
        remove_checkpoints(store, "")
    assert list(store.keys("checkpoints/")) == ["checkpoints/0123/last.ckpt"]

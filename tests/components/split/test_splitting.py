import pytest

from components.shared.dataset.split import fetch_split
from components.shared.errors import UserError
from components.shared.storage.store import open_store
from components.split.settings import FoldSettings, SplitSettings
from components.split.splitting import fold_dataset, split_dataset


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path))


def test_the_folds_of_an_ensemble_leave_the_test_part(store, make_data):
    data = make_data(40)
    base = split_dataset(data, SplitSettings(), store)
    folds = fold_dataset(data, FoldSettings(folds=4), store, base.split_id)
    assert list(folds) == ["fold-1", "fold-2", "fold-3", "fold-4"]
    splits = [fetch_split(store, split_id) for split_id in folds.values()]
    assert {split.part("test") for split in splits} == {base.part("test")}
    validated = [name for split in splits for name in split.part("validation")]
    assert sorted(validated) == sorted([*base.part("train"), *base.part("validation")])
    assert {len(split.part("validation")) for split in splits} == {8}


def test_too_many_folds_name_the_setting(store, make_data):
    data = make_data(6)
    base = split_dataset(data, SplitSettings(), store)
    for split_id in ("", base.split_id):
        with pytest.raises(UserError, match="9 folds of this data set are not possible; lower"):
            fold_dataset(data, FoldSettings(folds=9), store, split_id)

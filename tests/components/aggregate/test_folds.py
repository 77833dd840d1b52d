import dataclasses

import pytest

from components.aggregate.folds import read_folds
from components.shared.errors import UserError
from components.shared.tracking.server import connect


def read(world, files):
    return read_folds(files, world.manifest, world.store, connect())


def test_the_runs_say_which_fold_is_which_in_whatever_order_they_come(world):
    folds = read(world, world.files[::-1])
    assert [fold.label for fold in folds] == ["fold-1", "fold-2"]
    assert [fold.threshold for fold in folds] == [0.5, 0.4]
    for fold in folds:
        assert {score.volume for score in fold.scores} == set(fold.split.part("test"))
        seen = {*fold.split.part("train"), *fold.split.part("validation")}
        assert not seen & {score.volume for score in fold.scores}


def test_scores_of_another_fold_are_refused_by_the_folds_name(world):
    first, second = world.files
    swapped = [dataclasses.replace(first, per_patient=second.per_patient), second]
    with pytest.raises(UserError, match="fold-1: the scores do not match the test part"):
        read(world, swapped)


@pytest.mark.parametrize("picked", [[0], [0, 0, 1]])
def test_patients_whom_no_fold_tested_or_two_are_refused(world, picked):
    with pytest.raises(UserError, match=r"5 of 10 patients are not tested by exactly one fold"):
        read(world, [world.files[number] for number in picked])

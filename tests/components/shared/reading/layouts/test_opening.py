"""Layouts that the `dataset.json` of a source completes."""

import json

import pytest

from components.shared.errors import UserError
from components.shared.reading.layouts.opening import open_layout
from components.shared.reading.layouts.settings import LayoutSettings
from components.shared.reading.sources.folder import FolderSource


def source_of(folder):
    return FolderSource(str(folder), folder)


def described(tmp_path, name="nnunet", **content):
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    return open_layout(LayoutSettings(name=name), source_of(tmp_path))


def test_regions_of_nnunet_are_targets(tmp_path):
    layout = described(
        tmp_path,
        channel_names={"0": "T1 (post)", "1": "FLAIR"},
        labels={"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3},
    )
    assert layout.channels.names == ("T1 -post", "FLAIR")
    assert layout.labels == {"label 1": 1, "label 2": 2, "enhancing": 3}
    assert {target.name: target.labels for target in layout.targets} == {
        "whole": (1, 2, 3),
        "core": (2, 3),
        "enhancing": (3,),
    }


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({}, "it has no channel_names"),
        ({"channel_names": {"a": "T1"}}, "dataset.json is not that of nnunet: invalid literal"),
        ({"channel_names": {"0": "T1"}, "file_ending": ".png"}, "file_ending '.png' is not read"),
        ({"channel_names": {"0": "T1"}, "labels": {"a": "x"}}, "is not that of nnunet"),
        ({"channel_names": {"0": "T1"}, "labels": {"a": 999}}, "dataset.json.labels.a=999"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(tmp_path, content, problem):
    with pytest.raises(UserError) as refused:
        described(tmp_path, x=1, **content)
    assert problem in str(refused.value)


def test_a_missing_description_is_named(tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(UserError, match=r"has no dataset\.json; give the folder that holds it, or"):
        open_layout(LayoutSettings(name="msd"), source_of(tmp_path))

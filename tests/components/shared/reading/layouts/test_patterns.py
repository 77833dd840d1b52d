"""Paths with fields."""

import pytest

from components.shared.reading.layouts.patterns import PathPattern


@pytest.mark.parametrize(
    ("text", "path", "fields"),
    [
        ("{case}/{case}-t1.nii", "A/A-t1.nii", {"case": "A"}),
        ("{case}/{case}-t1.nii", "A/B-t1.nii", None),
        ("**/{case}/*.dcm", "a/b/c/1.dcm", {"case": "c"}),
        ("**/{case}/*.dcm", "c/1.dcm", {"case": "c"}),
        ("*/{case}.nii", "a/b/c.nii", None),
        ("{p}/[{s}/]x.nii", "1/2/x.nii", {"p": "1", "s": "2"}),
        ("{p}/[{s}/]x.nii", "1/x.nii", {"p": "1", "s": ""}),
        ("{case}.nii", "axnii", None),
    ],
)
def test_a_path_matches_or_does_not(text, path, fields):
    assert PathPattern.parse(text).match(path) == fields


def test_an_image_of_a_fourth_axis_has_a_number():
    assert PathPattern.parse("{case}.nii#2").index == 2


@pytest.mark.parametrize("text", ["", "/data/{case}.nii", "{Case}.nii", "[{case}.nii"])
def test_a_path_that_is_not_understood_is_refused(text):
    with pytest.raises(ValueError, match="path"):
        PathPattern.parse(text)

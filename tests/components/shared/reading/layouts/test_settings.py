"""Settings of layouts."""

import pytest

from components.shared.errors import UserError
from components.shared.reading.layouts.settings import LayoutSettings
from tests.components.shared.reading.layouts.declaring import settings


def test_a_name_alone_is_a_prefilled_layout():
    assert LayoutSettings.model_validate("brats") == LayoutSettings(name="brats")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"channels": {}}, "needs `channels`: a path for each channel"),
        ({"channels": {"T1": "/abs/{case}"}}, "must be relative"),
        ({"channels": {"T1": "[{case}"}}, "check its brackets"),
        ({"channels": {"T1": "{Case}.nii"}}, "is not understood at '{Case}.nii'"),
        ({"channels": {"T1": "t1.nii"}, "label": ()}, "needs a field that identifies the case"),
        ({"label": "{other}.nii"}, "all paths must have the same fields"),
        ({"reference": "T3"}, "reference 'T3' is none of the channels T1, FLAIR"),
        ({"optional": ("FLAIR",)}, "optional must name channels other than the reference"),
        ({"patient": "("}, "patient is no regular expression"),
        ({"patient": "x"}, "patient needs a group named patient"),
        ({"targets": {"all": (1, 7)}}, "target all has the value 7, which no label has"),
        ({"targets": {"a": (1,), "a+b": (1,)}}, "target a+b: MLflow refuses the +"),
        ({"labels": {"air": 0}}, "layout.labels.air=0: Input should be greater than or equal to 1"),
        ({"name": "tcga"}, "the layout tcga has fixed paths, not channels, label, labels; set"),
        ({"name": "brat"}, "(nearest: brats)"),
        ({"chanels": {}}, "layout.chanels is not a setting (nearest: layout.channels)"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, problem):
    with pytest.raises(UserError) as refused:
        settings(**changes)
    assert problem in str(refused.value)


def test_settings_survive_their_rendering():
    """They travel as text from the command line to a step."""
    for one in (LayoutSettings(), settings(), LayoutSettings(name="brats")):
        assert LayoutSettings.model_validate_json(one.model_dump_json()) == one

"""A declared layout of the tests."""

from components.shared.config import build_config
from components.shared.reading.layouts.settings import LayoutSettings

DECLARED = {
    "name": "declared",
    "channels": {"T1": "{case}/t1.nii.gz", "FLAIR": "{case}/flair.nii.gz"},
    "label": "{case}/seg.nii.gz",
    "labels": {"core": 1, "edema": 2},
}


def settings(**changes):
    return build_config(LayoutSettings, {**DECLARED, **changes}, "layout")

"""The interface of layouts."""

import pytest

from components.shared.reading.layouts.layout import LABEL, Layout
from components.shared.reading.layouts.opening import open_layout
from components.shared.reading.layouts.settings import LayoutSettings


@pytest.mark.parametrize("name", ["tcga", "brats", "bids", "dicom"])
def test_a_layout_has_all_of_the_interface(name):
    layout = open_layout(LayoutSettings(name=name), None)
    wanted = [each for each in vars(Layout) if not each.startswith("_")]
    assert len(wanted) == 9
    assert all(getattr(layout, each) is not None for each in wanted)
    assert LABEL not in layout.channels.names
    assert {value for target in layout.targets for value in target.labels} <= {
        *layout.labels.values()
    }

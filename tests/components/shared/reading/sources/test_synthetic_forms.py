"""Synthetic patients in other forms than slices."""

import pytest

from components.shared.reading.layouts.opening import open_layout
from components.shared.reading.layouts.settings import PREFILLED, LayoutSettings
from components.shared.reading.sources.opening import open_source
from components.shared.reading.sources.synthetic_forms import FORMS


@pytest.mark.parametrize("form", sorted(FORMS.keys() & PREFILLED.keys()))
def test_a_prefilled_layout_finds_every_file_of_its_form(form):
    with open_source(f"synthetic:2,as={form}") as source:
        listing = open_layout(LayoutSettings(name=form), source).list_scans(source)
    assert len({scan.name.patient for scan in listing.scans}) == 2
    assert listing.quarantined == ()
    described = {"dataset.json"} if FORMS[form].description else set()
    assert {path for paths in listing.ignored.values() for path in paths} == described

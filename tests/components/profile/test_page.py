import re

import numpy as np
import pytest

from components.profile.describe import describe
from components.profile.montage import Card
from components.profile.page import render_profile
from components.profile.settings import ProfileSettings
from components.shared.dataset.manifest import make_manifest

QUARANTINE = ({"volume": "TCGA_XX_1_2000", "reason": "gap in slice numbers", "files": ("a", "b")},)


DEFAULT = ProfileSettings()


@pytest.fixture(scope="module")
def render(make_account):
    def render(data, cards=(), **account):
        profile, measures = describe(data, make_account(**account), DEFAULT)
        return render_profile(profile, data, measures, cards)

    return render


@pytest.fixture(scope="module")
def odd(make_entry):
    return make_entry(99, slices=900, missing=("post-contrast",))


@pytest.fixture(scope="module")
def render_full(render, make_data, odd):
    """Renders data with content for every section."""
    data = make_manifest([*make_data(20).volumes, odd])
    card = Card(data.volumes[0], "largest tumour", np.zeros((20, 40, 3), np.uint8))
    return lambda: render(
        data,
        [card],
        quarantined=QUARANTINE,
        ignored={"not a TIFF": 3},
        warnings=("data.csv: no row for 8 patients",),
        files_found=1605,
    )


@pytest.fixture(scope="module")
def page(render_full):
    return render_full()


def test_has_a_section_for_everything(page):
    assert re.findall(r"<h2>(.*?)</h2>", page) == [
        "At a glance",
        "Pictures",
        "Sites",
        "Slices and tumour",
        "Intensity",
        "Missing sequences",
        "Outliers",
        "Genomic and clinical columns",
        "Quarantine and files",
        "All volumes",
    ]
    assert "Fit for training: all 6 limits are met." in page
    assert "Thomas Jefferson University" in page
    assert "age at diagnosis, years" in page


def test_data_of_another_form_show_their_own_names_and_units(render, make_foreign):
    page = render(
        make_foreign(), [Card(make_foreign().volumes[0], "typical", np.zeros((4, 4, 3), np.uint8))]
    )
    for text in ("FLAIR", "post-contrast", "Thomas Jefferson", "Genomic", "public data set"):
        assert text not in page
    for text in (
        "Channels: T1, T2. Reports show T2.",
        "T2, 99th percentile",
        "T1, delivered value of 255",
        "distance of slices, mm",
        "median tumour, ml",
        "5 x 1 x 1",
        "weight_kg",
    ):
        assert text in page
    assert "Sizes are in pixels" not in page


def test_one_unknown_spacing_leaves_sizes_in_pixels(render, make_foreign):
    page = render(make_foreign((None, *[5.0] * 11)))
    assert "Sizes are in pixels, not milliliters, because some volumes have no known" in page
    assert "Spacing unknown: 1 volume of 12." in page
    assert "median tumour, ml" not in page


def test_needs_no_network(page):
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    assert "@import" not in page
    assert "url(" not in page


def test_reports_what_ingest_refused_ignored_and_warned_of(page):
    assert "1,605 files were found: 1,600 in accepted volumes, 2 in quarantined" in page
    for text in ("TCGA_XX_1_2000", "gap in slice numbers", "not a TIFF", "no row for 8 patients"):
        assert text in page


def test_shows_the_pictures_with_their_reason(page, make_data):
    first = make_data(20).volumes[0]
    assert f"{first.volume}: largest tumour. {first.slices} slices" in page
    assert "data:image/webp;base64," in page


def test_names_volumes_that_lack_a_sequence_or_are_unusual(page, odd):
    assert "post-contrast in 1 volume." in page
    assert page.count(odd.volume) == 3  # missing, outlier, all volumes


def test_equal_data_make_equal_pages(page, render_full):
    assert page == render_full()


def test_shows_why_a_run_was_stopped_and_that_there_are_no_attributes(render, make_data):
    page = render(make_data(4, attributes={}))
    assert "The run stops here. patients: 4, must be at least 10: add patients" in page
    assert "limits are met" not in page
    assert "The source has no such columns." in page


def test_attributes_without_values_point_to_the_warnings(render, make_data):
    page = render(make_data(4, attributes={"race": None}), warnings=("data.csv: no rows",))
    assert "No patient has a value; see the warnings at the top of the page." in page


def test_names_from_the_users_files_cannot_run(render, make_data):
    evil = "<script>alert(1)</script>"
    page = render(make_data(4, attributes={evil: evil}), source=evil, ignored={evil: 1})
    assert evil not in page
    assert page.count("<script>") == 1  # the page's own


def test_stays_small_however_many_volumes(render, make_data):
    page = render(make_data(3000, attributes={}))
    assert "The first 1,000 of 3,000 rows." in page
    assert len(page) < 1_000_000

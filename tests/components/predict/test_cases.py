"""Digests of cases: what must be read again, and what must be predicted again."""

import os
import shutil

import pytest

from components.predict.cases import ReadCase, by_name, fingerprint, refusals
from components.shared.dataset.ingest_account import Quarantined
from components.shared.reading.layouts.opening import open_layout
from components.shared.reading.layouts.settings import LayoutSettings
from components.shared.reading.scans import Listing, Scan, ScanName, SizeLimits
from components.shared.reading.sources.opening import open_source

NAME = "TCGA_CS_0001_19990101"


@pytest.fixture
def folder(tmp_path, write_scan, make_blob):
    write_scan(tmp_path / "in", make_blob(1), NAME)
    return tmp_path / "in"


def digests(folder, name=NAME):
    """Fingerprint and digest of a case."""
    with open_source(str(folder)) as source:
        layout = open_layout(LayoutSettings(), source, with_labels=False)
        scan = by_name(layout.list_scans(source))[name]
        read = ReadCase(source, layout, SizeLimits())(scan)
        return fingerprint(source, layout, scan), read.digest


def test_a_copy_is_equal(folder, tmp_path):
    assert digests(folder) == digests(folder)
    copied = shutil.copytree(folder, tmp_path / "copied" / "deeper")
    assert digests(copied)[1] == digests(folder)[1]


def test_a_touched_file_is_read_but_not_predicted_again(folder):
    before = digests(folder)
    os.utime(folder / NAME / f"{NAME}_1.tif", ns=(1, 1))
    after = digests(folder)
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_other_voxels_are_another_case(folder):
    before, slices = digests(folder), sorted((folder / NAME).glob("*[0-9].tif"))
    first, second = (path.read_bytes() for path in slices[:2])
    slices[0].write_bytes(second)
    slices[1].write_bytes(first)  # the same files in another order
    after = digests(folder)
    assert after[0] != before[0]
    assert after[1] != before[1]


def test_labels_are_not_of_the_content(folder):
    before = digests(folder)
    for mask in (folder / NAME).glob("*_mask.tif"):
        mask.unlink()
    assert digests(folder)[1] == before[1]


def test_the_layout_counts_for_reading(folder):
    with open_source(str(folder)) as source:
        layouts = [open_layout(LayoutSettings(), source, with_labels=one) for one in (True, False)]
        scan = by_name(layouts[0].list_scans(source))[NAME]
        assert len({fingerprint(source, layout, scan) for layout in layouts}) == 2


def test_cases_of_one_name_are_refused():
    scans = [Scan(ScanName(name, name, "CS", ""), ((),)) for name in ("a", "b", "b")]
    bad = (Quarantined("c", "no channel", ()),)
    listing = Listing(tuple(scans), bad, ignored={}, tables=(), files_found=3)
    assert list(by_name(listing)) == ["a"]
    assert refusals(listing) == {"c": "no channel", "b": "2 cases have this name"}

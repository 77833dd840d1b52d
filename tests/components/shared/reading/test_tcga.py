import pytest

from components.shared.reading.scans import ScanName
from components.shared.reading.tcga import SliceName, parse_scan_name, parse_slice_name


def test_scan_name_has_four_parts():
    assert parse_scan_name("TCGA_DU_A5TP_19970614") == ScanName(
        volume="TCGA_DU_A5TP_19970614", patient="TCGA_DU_A5TP", site="DU", date="19970614"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "kaggle_3m",
        "TCGA_DU_A5TP",
        "TCGA_DU_A5TP_1997",
        "TCGA_DU_A5TP_19971314",
        "TCGA_DU_A5TP_00000101",
        "TCGA_DU_A5TP_19970614_",
        "TCGA_D_A5TP_19970614",
        "tcga_DU_A5TP_19970614",
        "TCGA_DU_A5TP_1997061٤",
    ],
)
def test_other_folder_names_are_no_scans(text):
    assert parse_scan_name(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("TCGA_CS_4941_19960909_1.tif", SliceName("TCGA_CS_4941_19960909", 1, False)),
        ("TCGA_CS_4941_19960909_12_mask.tif", SliceName("TCGA_CS_4941_19960909", 12, True)),
        ("TCGA_CS_4941_19960909_01.TIFF", SliceName("TCGA_CS_4941_19960909", 1, False)),
        ("TCGA_CS_4941_19960909.tif", SliceName("TCGA_CS_4941", 19960909, False)),
        ("TCGA_CS_4941_19960909_x.tif", None),
        ("TCGA_CS_4941_19960909_1.png", None),
    ],
)
def test_slice_names(text, expected):
    assert parse_slice_name(text) == expected

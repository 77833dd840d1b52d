"""Names and table columns of The Cancer Genome Atlas and of Kaggle's LGG MRI segmentation set."""

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass

from components.shared.reading.scans import ScanName

SCAN_FORM = "TCGA_<site>_<patient>_<yyyymmdd>"
EXPECTED_LAYOUT = (
    f"the expected form is one folder a volume, {SCAN_FORM}, holding slices {SCAN_FORM}_<n>.tif "
    f"and masks {SCAN_FORM}_<n>_mask.tif, with n from 1; "
    "e.g. kaggle_3m/TCGA_CS_4941_19960909/TCGA_CS_4941_19960909_1_mask.tif"
)

ATTRIBUTE_FILE = "data.csv"
PATIENT_COLUMN = "Patient"

# Its other columns and what they hold, after the papers on the set (Mazurowski 2017,
# Buda 2019). All are numbers, most of them codes; the set comes without a key to these.
ATTRIBUTES: Mapping[str, str] = {
    "RNASeqCluster": "tumour cluster by gene expression (RNA sequencing)",
    "MethylationCluster": "tumour cluster by DNA methylation",
    "miRNACluster": "tumour cluster by micro-RNA expression",
    "CNCluster": "tumour cluster by DNA copy number",
    "RPPACluster": "tumour cluster by protein expression (reverse-phase protein array)",
    "OncosignCluster": "tumour cluster by mutations and copy-number events (OncoSign)",
    "COCCluster": "cluster of clusters: all genomic platforms together",
    "histological_type": "type of the tumour under the microscope (code)",
    "neoplasm_histologic_grade": "grade of the tumour under the microscope (code)",
    "tumor_tissue_site": "organ of the tumour (code)",
    "laterality": "side of the brain (code)",
    "tumor_location": "lobe of the brain (code)",
    "gender": "sex (code)",
    "age_at_initial_pathologic": "age at diagnosis, years",
    "race": "race (code)",
    "ethnicity": "ethnicity (code)",
    "death01": "outcome: 1 = died in follow-up, 0 = did not",
}

# Tissue source sites of The Cancer Genome Atlas.
SITE_NAMES: Mapping[str, str] = {
    "CS": "Thomas Jefferson University",
    "DU": "Henry Ford Hospital",
    "EZ": "University of North Carolina",
    "FG": "Case Western",
    "HT": "Case Western, St. Joseph's",
}

_SCAN = re.compile(r"(?P<patient>TCGA_(?P<site>[A-Z0-9]{2})_[A-Z0-9]+)_(?P<date>[0-9]{8})")
_SLICE = re.compile(r"(?P<volume>.+)_(?P<number>[0-9]{1,9})(?P<mask>_mask)?\.tiff?", re.IGNORECASE)


@dataclass(frozen=True)
class SliceName:
    """The parts of a slice's file name; `volume` is the folder's name in a valid scan."""

    volume: str
    number: int
    is_mask: bool


def parse_scan_name(text: str) -> ScanName | None:
    """Parses a folder's name; `None` if it does not name a scan."""
    match = _SCAN.fullmatch(text)
    if match is None or not _is_date(match["date"]):
        return None
    return ScanName(text, match["patient"], match["site"], match["date"])


def parse_slice_name(text: str) -> SliceName | None:
    """Parses a slice's or a mask's file name; `None` if it is neither."""
    match = _SLICE.fullmatch(text)
    if match is None:
        return None
    return SliceName(match["volume"], int(match["number"]), match["mask"] is not None)


def _is_date(text: str) -> bool:
    try:
        datetime.date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return False
    return True

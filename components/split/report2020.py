"""Held-out volumes of the 2020 report on this data set."""

from components.shared.dataset.manifest import Manifest
from components.shared.errors import UserError

# The report calls them its validation set; it had no other.
REPORT2020_VOLUMES = (
    "TCGA_CS_5395_19981004",
    "TCGA_DU_5855_19951217",
    "TCGA_DU_5871_19941206",
    "TCGA_DU_5874_19950510",
    "TCGA_DU_6399_19830416",
    "TCGA_DU_7013_19860523",
    "TCGA_DU_7019_19940908",
    "TCGA_DU_7300_19910814",
    "TCGA_DU_8165_19970205",
    "TCGA_DU_A5TT_19980318",
    "TCGA_FG_6688_20020215",
    "TCGA_HT_7684_19950816",
    "TCGA_HT_7694_19950404",
    "TCGA_HT_7855_19951020",
    "TCGA_HT_8113_19930809",
)


def report2020_patients(manifest: Manifest) -> list[str]:
    """Returns the patients of the report's held-out volumes.

    Raises:
        UserError: If the data set lacks some of the volumes; the message names them.
    """
    known = manifest.by_name()
    lacking = [volume for volume in REPORT2020_VOLUMES if volume not in known]
    if lacking:
        raise UserError(
            f"split: report2020 needs {len(REPORT2020_VOLUMES)} volumes, but the data set lacks "
            f"{len(lacking)} of them: {', '.join(lacking)}; ingest the whole data set, or use the "
            "method `stratified`"
        )
    return [known[volume].patient for volume in REPORT2020_VOLUMES]

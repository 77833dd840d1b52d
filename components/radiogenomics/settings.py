"""Settings of the radiogenomics step."""

from typing import Literal

from pydantic import Field

from components.shared.config import Config


class RadiogenomicsSettings(Config):
    """Settings of an analysis of shape and genomics.

    Attributes:
        model: `champion`, `models:/NAME/VERSION` or `models:/NAME@ALIAS`; `none` measures the
            expert masks only.
        model_name: Registered model that `champion` refers to.
        subtypes: Columns of the patient table with genomic clusters; those that the data set
            lacks are left out.
        device: Device of the model; `auto` uses a GPU if there is one.
    """

    model: str = Field("champion", pattern=r"^(none|champion|models:/.+)$")
    model_name: str = "brainseg"
    subtypes: tuple[str, ...] = Field(
        (
            "RNASeqCluster",
            "MethylationCluster",
            "miRNACluster",
            "CNCluster",
            "RPPACluster",
            "OncosignCluster",
            "COCCluster",
        ),
        min_length=1,
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"

"""Settings of the step."""

from typing import Literal

from pydantic import Field

from components.shared.config import Config


class PredictSettings(Config):
    """How volumes are predicted.

    Attributes:
        model_name: The registered model whose champion is meant by `champion`.
        device: Where the segmenter runs; `auto` takes a GPU where there is one.
        most_pictures: How many volumes the page shows in pictures.
        max_file_mib: A larger slice refuses its volume.
        max_archive_gib: A .zip that unpacks to more is refused.
    """

    model_name: str = "brainseg"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    most_pictures: int = Field(60, ge=0, le=1000)
    max_file_mib: float = Field(64.0, gt=0)
    max_archive_gib: float = Field(64.0, gt=0)

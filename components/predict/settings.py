"""Settings of the predict step."""

from typing import Literal

from pydantic import Field

from components.shared.config import Config


class PredictSettings(Config):
    """Settings of a prediction.

    Attributes:
        model_name: Registered model that `champion` refers to.
        device: Device of the segmenter; `auto` uses a GPU if there is one.
        most_pictures: Largest number of volumes with a picture in the page.
        max_file_mib: Largest slice file; a volume with a larger file is refused.
        max_archive_gib: Largest unpacked size of a .zip; a larger archive is refused.
    """

    model_name: str = "brainseg"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    most_pictures: int = Field(60, ge=0, le=1000)
    max_file_mib: float = Field(64.0, gt=0)
    max_archive_gib: float = Field(64.0, gt=0)

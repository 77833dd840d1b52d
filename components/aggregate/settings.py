"""Settings of the step."""

from typing import Literal

from pydantic import Field

from components.shared.config import Config


class AggregateSettings(Config):
    """What the report of a cross-validation shows.

    Attributes:
        overlay_volumes: How many of the worst patients are drawn.
        device: Where the models predict these; `auto` takes a GPU where there is one.
    """

    overlay_volumes: int = Field(4, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"

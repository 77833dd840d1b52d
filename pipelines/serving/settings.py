"""Settings of the server."""

from typing import Literal

from pydantic import Field

from components.predict.settings import PredictSettings
from components.shared.config import Config
from components.shared.reading.layouts.settings import LayoutSettings


class ServeSettings(Config):
    """Settings of the server.

    Attributes:
        model_name: Registered model that `champion` refers to, and the name of a model folder.
        device: Device of the segmenter; `auto` uses a GPU if there is one.
        poll_s: Seconds between two looks at the registry.
        max_requests: Largest number of uploads at a time; others get 429. One is computed, the
            others are read or wait.
        max_connections: Largest number of open connections; others get 503.
        max_body_mib: Largest body; a larger one gets 413.
        read_timeout_s: Seconds for the header of a request, and again for its body; 408 after it.
        shutdown_s: Seconds in which running requests may end after SIGTERM.
        max_volume_mib: Largest unpacked volume; a larger one is refused.
        layout: Layout of an uploaded .zip.
    """

    model_name: str = "brainseg"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    poll_s: float = Field(30.0, gt=0)
    max_requests: int = Field(16, ge=1)
    max_connections: int = Field(512, ge=1)
    max_body_mib: float = Field(128.0, gt=0, le=2048)
    read_timeout_s: float = Field(30.0, gt=0)
    shutdown_s: int = Field(60, ge=0)
    max_volume_mib: float = Field(400.0, gt=0, le=2048)
    layout: LayoutSettings = Field(default_factory=LayoutSettings)

    @property
    def predict(self) -> PredictSettings:
        """The settings of a prediction."""
        return PredictSettings(
            model_name=self.model_name,
            device=self.device,
            max_file_mib=self.max_body_mib,
            max_volume_mib=self.max_volume_mib,
            layout=self.layout,
        )

"""Settings of the ensemble step."""

from pydantic import Field

from components.shared.config import Config


class EnsembleSettings(Config):
    """Settings of an ensemble.

    Attributes:
        max_size_mib: Largest size of the members' weights together, in MiB. Serving needs this
            much memory, and the time of a prediction is that of all members.
    """

    max_size_mib: float = Field(512.0, gt=0)

"""What the step reads of register's settings."""

from pydantic import ConfigDict, Field

from components.shared.config import Config


class CheckDataSettings(Config):
    """Which model is kept up to date: said once, in register's settings; the rest is not read.

    Attributes:
        model_name: The registered model.
    """

    model_config = ConfigDict(extra="ignore")

    model_name: str = Field("brainseg", pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")

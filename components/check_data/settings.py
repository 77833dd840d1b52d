"""Settings that check_data reads from register's settings."""

from pydantic import ConfigDict, Field

from components.shared.config import Config


class CheckDataSettings(Config):
    """The model to keep up to date; other settings of register are ignored.

    Attributes:
        model_name: Name of the registered model.
    """

    model_config = ConfigDict(extra="ignore")

    model_name: str = Field("brainseg", pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")

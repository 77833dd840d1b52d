"""Name of the registered model, for steps that read it from register's settings."""

from pydantic import ConfigDict, Field

from components.shared.config import Config, parse_config


class ModelName(Config):
    """The registered model; other settings of register are ignored.

    Attributes:
        model_name: Name of the registered model.
    """

    model_config = ConfigDict(extra="ignore")

    model_name: str = Field("brainseg", pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")


def read_model_name(register_settings: str) -> str:
    """Reads the name from the YAML of register's settings.

    Raises:
        UserError: If it is not a name.
    """
    return parse_config(ModelName, register_settings, "register").model_name

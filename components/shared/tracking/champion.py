"""The registered version that is in use."""

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

CHAMPION = "champion"  # alias of the registered version that is in use


def find_champion(client: MlflowClient, name: str) -> ModelVersion | None:
    """Returns the version of a registered model under the alias `champion`, if there is one."""
    try:
        aliases = client.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return client.get_model_version(name, str(aliases[CHAMPION])) if CHAMPION in aliases else None

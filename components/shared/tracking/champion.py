"""The registered version that is in use, and what travels with a version."""

from collections.abc import Iterator

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from components.shared.dataset.manifest import manifest_key
from components.shared.dataset.split import split_key
from components.shared.errors import UserError
from components.shared.storage.store import Store

_PAGE = 1000  # models a request

CHAMPION = "champion"  # alias of the registered version that is in use

DECISION_TAG = "decision"  # of a version: what was decided about it
STORE_TAG = "store"  # of a version: URI of the store that has its data set
THRESHOLD_TAG = "threshold"  # of a version: what it was scored with
DEFAULT_THRESHOLD = 0.5  # of a model that does not say what it was scored with


def find_champion(client: MlflowClient, name: str) -> ModelVersion | None:
    """Returns the version of a registered model under the alias `champion`, if there is one."""
    try:
        aliases = client.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return client.get_model_version(name, str(aliases[CHAMPION])) if CHAMPION in aliases else None


def champions(client: MlflowClient) -> Iterator[ModelVersion]:
    """The champions of all registered models of a server."""
    token = None
    while token != "":
        page = client.search_registered_models(max_results=_PAGE, page_token=token)
        for model in page:
            if CHAMPION in model.aliases:
                yield client.get_model_version(model.name, str(model.aliases[CHAMPION]))
        token = page.token or ""


def is_origin_known(version: ModelVersion, store: Store) -> bool:
    """Whether a store has the data set version and split that a model was trained with."""
    dataset_id = version.tags.get("dataset_id", "")
    split_id = version.tags.get("split_id", "")
    return store.exists(manifest_key(dataset_id)) and store.exists(split_key(split_id))


def version_threshold(version: ModelVersion) -> float:
    """The threshold that a version was scored with: its tag `threshold`, else 0.5.

    Raises:
        UserError: If the tag holds no probability.
    """
    told = version.tags.get(THRESHOLD_TAG, DEFAULT_THRESHOLD)
    return parse_threshold(told, f"version {version.version} of model {version.name}")


def parse_threshold(told: object, model: str) -> float:
    """Reads the threshold that a model brings with it.

    Args:
        told: What is written there.
        model: What the model is called, for the message.

    Raises:
        UserError: If it is no probability between 0 and 1.
    """
    try:
        threshold = float(str(told))
    except ValueError:
        threshold = float("nan")
    if not 0 < threshold < 1:
        raise UserError(
            f"{model} says that its threshold is {told!r}, not a number between 0 and 1; set it to "
            "what the model was evaluated with"
        )
    return threshold

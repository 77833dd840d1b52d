"""The registered version in use, and the tags of a version."""

from collections.abc import Iterator

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from components.shared.dataset.manifest import manifest_key
from components.shared.dataset.split import split_key
from components.shared.errors import UserError
from components.shared.storage.store import Store

_PAGE = 1000  # models per request

CHAMPION = "champion"  # alias of the registered version that is in use

DECISION_TAG = "decision"  # of a version: the decision about it
STORE_TAG = "store"  # of a version: URI of the store with its data set
THRESHOLD_TAG = "threshold"  # of a version: the threshold of its scores
DEFAULT_THRESHOLD = 0.5  # of a model without that tag


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
    """Yields the champions of all registered models of a server."""
    token = None
    while token != "":
        page = client.search_registered_models(max_results=_PAGE, page_token=token)
        for model in page:
            if CHAMPION in model.aliases:
                yield client.get_model_version(model.name, str(model.aliases[CHAMPION]))
        token = page.token or ""


def is_origin_known(version: ModelVersion, store: Store) -> bool:
    """Returns whether a store has the data set version and split of a model's training."""
    dataset_id = version.tags.get("dataset_id", "")
    split_id = version.tags.get("split_id", "")
    return store.exists(manifest_key(dataset_id)) and store.exists(split_key(split_id))


def version_threshold(version: ModelVersion) -> float:
    """Returns the threshold of a version's scores: its tag `threshold`, or 0.5.

    Raises:
        UserError: If the tag is not a probability.
    """
    value = version.tags.get(THRESHOLD_TAG, DEFAULT_THRESHOLD)
    return parse_threshold(value, f"version {version.version} of model {version.name}")


def parse_threshold(value: object, model: str) -> float:
    """Reads the threshold of a model.

    Args:
        value: Stored value.
        model: Name of the model, for the message.

    Raises:
        UserError: If it is not a number between 0 and 1.
    """
    try:
        threshold = float(str(value))
    except ValueError:
        threshold = float("nan")
    if not 0 < threshold < 1:
        raise UserError(
            f"{model} has the threshold {value!r}, not a number between 0 and 1; set it to the "
            "threshold that the model was evaluated with"
        )
    return threshold

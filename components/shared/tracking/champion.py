"""The registered version in use, and the tags of a version."""

import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.utils.models import get_model_name_and_version

from components.shared.dataset.manifest import manifest_key
from components.shared.dataset.split import split_key
from components.shared.errors import UserError
from components.shared.storage.store import Store
from components.shared.tracking.refusals import explaining
from components.shared.tracking.server import connect

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PAGE = 1000  # models per request

CHAMPION = "champion"  # alias of the registered version that is in use

DECISION_TAG = "decision"  # of a version: the decision about it
STORE_TAG = "store"  # of a version: URI of the store with its data set
THRESHOLD_TAG = "threshold"  # of a version: the threshold of its scores
DEFAULT_THRESHOLD = 0.5  # of a model without that tag


def find_champion(client: MlflowClient, name: str) -> ModelVersion | None:
    """Returns the version of a registered model under the alias `champion`, if there is one.

    An alias without its version counts as none, with a warning: some servers keep the alias of a
    deleted version.
    """
    model = _find(client.get_registered_model, name)
    version = _champion(client, model) if model else None
    if model and version is None and CHAMPION in model.aliases:
        logger.warning("%s; there is no champion", _lost(model))
    return version


def require_champion(client: MlflowClient, name: str) -> ModelVersion:
    """Returns the version of a registered model under the alias `champion`.

    Raises:
        UserError: If there is no such model, no such alias, or its version was deleted.
    """
    model = _find(client.get_registered_model, name) if name else None
    if model is None:
        newest = ["last_updated_timestamp DESC"]
        known = [one.name for one in client.search_registered_models(None, 10, newest)]
        raise UserError(
            f"MLflow at {client.tracking_uri} has no model {name!r} (it has"
            f"{': ' + ', '.join(known) if known else ' no models'}); use another name, train one "
            "with `brainseg run`, or set MLFLOW_TRACKING_URI to its server"
        )
    champion = _champion(client, model)
    if champion is None and CHAMPION in model.aliases:
        raise UserError(_lost(model))
    if champion is None:
        raise UserError(
            f"model {name!r} of MLflow at {client.tracking_uri} has no champion; the descriptions "
            "of its versions give the reasons: set the alias champion of one in the MLflow UI, or "
            f"use a version by its number, models:/{name}/NUMBER"
        )
    return champion


@explaining()
def resolve_model(model: str, model_name: str) -> str:
    """Resolves a model to its URI, with aliases replaced by the version.

    Args:
        model: `champion`, an MLflow URI (`models:/...`, `runs:/...`) or a folder.
        model_name: Name of the registered model with the champion.

    Raises:
        UserError: If MLflow is needed and cannot be used, or there is no champion or no such
            alias.
    """
    if model == "champion":
        version = require_champion(connect(), model_name)
        return f"models:/{version.name}/{version.version}"
    if model.startswith("runs:"):
        connect()
    if not model.startswith("models:"):
        return model
    client = connect()
    try:
        found = get_model_name_and_version(client, model)  # type: ignore[no-untyped-call] # MLflow's
    except MlflowException as error:
        raise UserError(f"model {model} cannot be loaded: {error}") from error
    return "/".join(["models:", *map(str, found)])


def find_version(client: MlflowClient, name: str, number: str) -> ModelVersion | None:
    """Returns a version of a registered model; `None` if it does not exist."""
    return _find(client.get_model_version, name, number)


def version_of(uri: str) -> ModelVersion | None:
    """Returns the registered version of a URI `models:/name/version`; `None` if there is none."""
    kind, _, rest = uri.partition(":/")
    name, _, number = rest.partition("/")
    return find_version(connect(), name, number) if kind == "models" and number else None


def champions(client: MlflowClient) -> Iterator[ModelVersion]:
    """Yields the champions of all registered models of a server."""
    token = None
    while token != "":
        page = client.search_registered_models(max_results=_PAGE, page_token=token)
        yield from filter(None, (_champion(client, model) for model in page))
        token = page.token or ""


def _champion(client: MlflowClient, model: RegisteredModel) -> ModelVersion | None:
    number = model.aliases.get(CHAMPION)
    return find_version(client, model.name, str(number)) if number else None


def _lost(model: RegisteredModel) -> str:
    return (
        f"the alias champion of model {model.name!r} is on version {model.aliases[CHAMPION]}, "
        "which was deleted; remove the alias, or set it on another version"
    )


def _find(get: Callable[..., T], *names: str) -> T | None:
    """Calls a function of MLflow's client; `None` for names that nothing has or can have."""
    try:
        return get(*names)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


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

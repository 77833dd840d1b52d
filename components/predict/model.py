"""Which model is meant, and the threshold that belongs to it."""

from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.utils.models import get_model_name_and_version

from components.shared.errors import UserError
from components.shared.tracking.champion import (
    DEFAULT_THRESHOLD,
    THRESHOLD_TAG,
    find_champion,
    parse_threshold,
    version_threshold,
)
from components.shared.tracking.server import connect

_PARAM = "evaluate.threshold"  # of a run, and of the models that come from it


def resolve_model(model: str, model_name: str) -> str:
    """Returns what MLflow calls the model, the champion or another alias by its version.

    Args:
        model: `champion`, a URI that MLflow reads (`models:/...`, `runs:/...`) or a folder.
        model_name: The registered model that has the champion.

    Raises:
        UserError: If MLflow is needed and cannot be used, or there is no champion or no such
            alias.
    """
    if model == "champion":
        return _champion(connect(), model_name)
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


def scored_threshold(uri: str, metadata: Mapping[str, object]) -> float:
    """The threshold that a model was scored with, as far as anything tells; else 0.5.

    A registered version has it as a tag, a run and a model logged by it as a parameter of
    evaluate, and any other model perhaps as `threshold` in the metadata of its MLmodel file.

    Args:
        uri: What `resolve_model` returned; there is a model that can be loaded.
        metadata: Of the MLmodel file.

    Raises:
        UserError: If what is told is no threshold.
    """
    kind, _, rest = uri.partition(":/")
    name, _, number = rest.partition("/")
    if kind == "models" and number:
        return version_threshold(connect().get_model_version(name, number))
    told: object = None
    if kind == "models":
        told = connect().get_logged_model(name).params.get(_PARAM)
    elif kind == "runs":
        told = connect().get_run(name).data.params.get(_PARAM)
    if told is None:
        told = metadata.get(THRESHOLD_TAG, DEFAULT_THRESHOLD)
    return parse_threshold(told, f"model {uri}")


def _champion(client: MlflowClient, name: str) -> str:
    champion = find_champion(client, name)
    if champion is not None:
        return f"models:/{name}/{champion.version}"
    versions = client.search_model_versions(f"name = '{name}'")
    if not versions:
        raise UserError(
            f"MLflow at {client.tracking_uri} has no model {name!r}; train one with "
            "`brainseg run`, or give the URI or the folder of a model"
        )
    raise UserError(
        f"model {name!r} has {len(versions)} versions but no champion; their descriptions "
        f"say why; give one by its number, e.g. models:/{name}/{versions[0].version}"
    )

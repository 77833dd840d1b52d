"""Threshold of a model for a prediction."""

from mlflow.entities.model_registry import ModelVersion

from components.shared.tracking.champion import (
    DEFAULT_THRESHOLD,
    parse_threshold,
    version_threshold,
)
from components.shared.tracking.refusals import explaining
from components.shared.tracking.server import connect

_PARAM = "evaluate.threshold"  # parameter of a run, and of the models that it logged


@explaining()
def version_origin(uri: str) -> str:
    """Returns what distinguishes a registered version from one of a later registry.

    Args:
        uri: URI `models:/name/version`.

    Returns:
        Id of the run that it is from, or the address of its files.
    """
    version = registered_version(uri)
    return str(version.run_id or version.source)


def registered_version(uri: str) -> ModelVersion:
    """Returns the version of a URI `models:/name/version`."""
    name, _, number = uri.removeprefix("models:/").partition("/")
    return connect().get_model_version(name, number)


@explaining()
def scored_threshold(uri: str, stored: float | None) -> float:
    """Finds the threshold of a model's evaluation; 0.5 if it is not recorded.

    A registered version has the threshold as a tag. A run and the models that it logged have it
    as a parameter. Other models may have `threshold` in their `config.json`.

    Args:
        uri: URI of a loadable model, from `resolve_model`.
        stored: Threshold in the model's `config.json`; `None` if it has none.

    Raises:
        UserError: If the recorded value is not a threshold.
    """
    kind, _, rest = uri.partition(":/")
    name, _, number = rest.partition("/")
    if kind == "models" and number:
        return version_threshold(connect().get_model_version(name, number))
    recorded: object = None
    if kind == "models":
        recorded = connect().get_logged_model(name).params.get(_PARAM)
    elif kind == "runs":
        recorded = connect().get_run(name).data.params.get(_PARAM)
    if recorded is None:
        recorded = DEFAULT_THRESHOLD if stored is None else stored
    return parse_threshold(recorded, f"model {uri}")

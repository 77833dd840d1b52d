"""Rollback to an earlier champion."""

from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from components.register.registry import version_before
from components.shared.errors import UserError
from components.shared.tracking.champion import CHAMPION, find_champion
from components.shared.tracking.server import connect


@dataclass(frozen=True)
class Rollback:
    """Champions of a registered model before and after a rollback."""

    model_name: str
    from_version: str
    to_version: str


def rollback(model_name: str) -> Rollback:
    """Moves the alias `champion` back to the version that the current champion replaced.

    Raises:
        UserError: If MLflow cannot be used or has no such model, or there is no champion or no
            earlier champion.
    """
    client = connect()
    champion = _champion(client, model_name)
    number, before = str(champion.version), version_before(champion)
    if before is None:
        raise UserError(
            f"version {number} of {_named(client, model_name)} is the first champion, so there is "
            "no earlier one; to stop using it, delete its alias in the MLflow UI"
        )
    _require_version(client, model_name, before, number)
    client.set_registered_model_alias(model_name, CHAMPION, before)
    client.set_model_version_tag(model_name, number, "rolled_back_to", before)
    return Rollback(model_name, number, before)


def _champion(client: MlflowClient, name: str) -> ModelVersion:
    _require_model(client, name)
    champion = find_champion(client, name)
    if champion is None:
        raise UserError(
            f"{_named(client, name)} has no champion, so there is nothing to roll back; the "
            "descriptions of its versions say why none was promoted"
        )
    return champion


def _require_model(client: MlflowClient, name: str) -> None:
    try:
        if name:  # a server treats the empty name as a missing argument
            client.get_registered_model(name)
            return
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise UserError(f"{_named(client, name)} cannot be read: {error.message}") from error
    newest = ["last_updated_timestamp DESC"]
    known = [
        model.name for model in client.search_registered_models(max_results=10, order_by=newest)
    ]
    raise UserError(
        f"MLflow at {client.tracking_uri} has no model {name!r}; it has: "
        f"{', '.join(known) or 'none'}; use one of these, or set MLFLOW_TRACKING_URI to its server"
    )


def _require_version(client: MlflowClient, name: str, before: str, number: str) -> None:
    try:
        client.get_model_version(name, before)
    except MlflowException as error:
        raise UserError(
            f"version {number} of {_named(client, name)} replaced version {before}, which was "
            "deleted; set the alias champion manually in the MLflow UI"
        ) from error


def _named(client: MlflowClient, name: str) -> str:
    return f"model {name!r} of MLflow at {client.tracking_uri}"

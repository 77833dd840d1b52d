"""Rollback to an earlier champion."""

from dataclasses import dataclass

from components.register.registry import version_before
from components.shared.errors import UserError
from components.shared.tracking.champion import CHAMPION, find_version, require_champion
from components.shared.tracking.refusals import explaining
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
    with explaining():
        champion = require_champion(client, model_name)
        number, before = str(champion.version), version_before(champion)
        named = f"version {number} of model {model_name!r} of MLflow at {client.tracking_uri}"
        if before is None:
            raise UserError(
                f"{named} is the first champion, so there is no earlier one; to stop using it, "
                "delete its alias in the MLflow UI"
            )
        if find_version(client, model_name, before) is None:
            raise UserError(
                f"{named} replaced version {before}, which was deleted; set the alias champion "
                "manually in the MLflow UI"
            )
        client.set_registered_model_alias(model_name, CHAMPION, before)
        client.set_model_version_tag(model_name, number, "rolled_back_to", before)
    return Rollback(model_name, number, before)

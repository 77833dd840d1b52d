"""The way back to an earlier champion."""

from dataclasses import dataclass

from components.register.registry import move_back
from components.shared.tracking import connect


@dataclass(frozen=True)
class Rollback:
    """Versions of a registered model that were and are champion."""

    model_name: str
    from_version: str
    to_version: str


def rollback(model_name: str) -> Rollback:
    """Moves the alias `champion` back to the version that the present one replaced.

    Raises:
        UserError: If MLflow cannot be used or there is nothing to go back to.
    """
    return Rollback(model_name, *move_back(connect(), model_name))

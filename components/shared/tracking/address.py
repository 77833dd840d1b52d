"""Local files in tracking URIs; without MLflow, for callers that do not need it."""

import re
from pathlib import Path

from components.shared.errors import UserError

_SQLITE = "sqlite:///"
_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}|\?(?=.*/)")


def sqlite_file(uri: str) -> Path | None:
    """Returns the absolute path of a local MLflow's file; `None` for a server's URI.

    Raises:
        UserError: If a folder's name means another one in a URI. SQLAlchemy would open the
            decoded path, and MLflow create a folder with the path as it is written.
    """
    if not uri.startswith(_SQLITE):
        return None
    text = uri.removeprefix(_SQLITE)
    if found := _ENCODED.search(text):
        raise UserError(
            f"MLflow cannot use a file in {Path(text).parent}: the folder's name holds "
            f"{found[0]!r}, which has another meaning in a URI; rename the folder, work in another "
            "one, or set MLFLOW_TRACKING_URI to a file elsewhere"
        )
    return Path(text.partition("?")[0]).absolute()

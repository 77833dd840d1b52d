"""Local files in tracking URIs; without MLflow, for callers that do not need it."""

from pathlib import Path

_SQLITE = "sqlite:///"


def sqlite_file(uri: str) -> Path | None:
    """Returns the absolute path of a local MLflow's file; `None` for a server's URI."""
    return Path(uri.removeprefix(_SQLITE)).absolute() if uri.startswith(_SQLITE) else None

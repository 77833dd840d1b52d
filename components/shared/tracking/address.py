"""What a tracking URI names; MLflow is not imported, so that all can ask who do without it."""

from pathlib import Path

_SQLITE = "sqlite:///"


def sqlite_file(uri: str) -> Path | None:
    """The file of a local MLflow, by its absolute path; `None` for a server's URI."""
    return Path(uri.removeprefix(_SQLITE)).absolute() if uri.startswith(_SQLITE) else None

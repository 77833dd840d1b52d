"""A data set version that the store has already; ingest reads no file for it."""

import re
from typing import NoReturn

from components.shared.errors import UserError

SCHEME = "dataset:"
FORM = "dataset:ID"
SHARED = True

_FORM = re.compile(r"dataset:([0-9a-f]{16})")


def check_form(uri: str) -> None:
    """Refuses an id of another form than those of `brainseg datasets`."""
    dataset_id_of(uri)


def dataset_id_of(uri: str) -> str:
    """The id in a URI.

    Raises:
        UserError: If it has another form.
    """
    found = _FORM.fullmatch(uri)
    if found is None:
        raise UserError(
            f"source {uri!r} must be dataset: and an id of 16 digits, as `brainseg datasets` lists "
            "them"
        )
    return found[1]


def open_uri(uri: str, max_archive_gib: float) -> NoReturn:
    """Refuses to open it: its files were read when it was ingested."""
    del max_archive_gib
    raise UserError(f"source {uri} is a version in a store and has no files; give their source")

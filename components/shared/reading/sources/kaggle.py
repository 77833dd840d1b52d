"""A data set of Kaggle, downloaded once by kagglehub into its own cache."""

import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from components.shared.errors import UserError
from components.shared.reading.sources.local import open_folder
from components.shared.reading.sources.source import Source

SCHEME = "kaggle:"
FORM = "kaggle:owner/dataset"
SHARED = True
EXTRA = "kaggle"

_FORM = re.compile(r"kaggle:[\w.-]+/[\w./-]+")
_ADVICE = (
    f"the form is {FORM}, e.g. kaggle:mateuszbuda/lgg-mri-segmentation, and a private data set "
    "needs KAGGLE_USERNAME and KAGGLE_KEY"
)


def check_form(uri: str) -> None:
    """Requires an owner and a data set."""
    if not _FORM.fullmatch(uri):
        raise UserError(f"source {uri!r} is not understood; {_ADVICE}")


@contextlib.contextmanager
def open_uri(uri: str, max_archive_gib: float) -> Iterator[Source]:
    """Downloads a data set and opens the folder that holds it."""
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for results; kagglehub logs there
        folder = Path(_download(uri)).resolve()
    yield open_folder(uri, folder, max_archive_gib)


def _download(uri: str) -> str:
    import kagglehub
    import requests  # type: ignore[import-untyped] # no stubs; comes with kagglehub
    from kagglehub import exceptions

    try:
        return str(kagglehub.dataset_download(uri.removeprefix("kaggle:")))
    except requests.ConnectionError as error:
        raise UserError(
            f"source {uri}: Kaggle cannot be reached; check the network, or download the data set "
            "elsewhere and give the folder or .zip"
        ) from error
    except (
        ValueError,  # the handle is malformed
        OSError,  # the server refuses (requests' errors are OSErrors), disk full
        exceptions.BackendError,
        exceptions.CredentialError,
        exceptions.DataCorruptionError,
        exceptions.NotFoundError,
        exceptions.UnauthenticatedError,
    ) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"source {uri}: {reason}; {_ADVICE}") from error

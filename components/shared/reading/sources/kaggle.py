"""A data set of Kaggle, downloaded once by kagglehub into its own cache."""

import contextlib
import sys
from pathlib import Path

from components.shared.errors import UserError
from components.shared.reading.sources.folder import FolderSource


def download_kaggle(uri: str) -> FolderSource:
    """Downloads `kaggle:owner/dataset` and opens the folder it lies in.

    Raises:
        UserError: If kagglehub is not installed, the data set does not exist or may not be
            read, or the network fails.
    """
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for results; kagglehub logs there
        return FolderSource(uri, Path(_download(uri)).resolve())


def _download(uri: str) -> str:
    try:
        import kagglehub
        import requests  # type: ignore[import-untyped] # no stubs; comes with kagglehub
        from kagglehub import exceptions
    except ImportError as error:
        raise UserError(
            f"source {uri} needs the package kagglehub; install it with "
            "`pip install 'brainseg[kaggle]'`"
        ) from error
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
        raise UserError(f"source {uri}: {_advice(error)}") from error


def _advice(error: Exception) -> str:
    reason = " ".join(str(error).split())
    return (
        f"{reason}; the form is kaggle:owner/dataset, e.g. "
        "kaggle:mateuszbuda/lgg-mri-segmentation, and a private data set needs KAGGLE_USERNAME "
        "and KAGGLE_KEY"
    )

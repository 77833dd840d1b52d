"""A data set of Kaggle, downloaded once by kagglehub into its own cache."""

import contextlib
import sys
from pathlib import Path

from components.shared.errors import UserError
from components.shared.sources.folder import FolderSource, open_folder


def download_kaggle(uri: str) -> FolderSource:
    """Downloads `kaggle:owner/dataset` and opens the folder it lies in.

    Raises:
        UserError: If kagglehub is not installed, the data set does not exist or may not be
            read, or the network fails.
    """
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
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
            folder = kagglehub.dataset_download(uri.removeprefix("kaggle:"))
    except (
        ValueError,  # the handle is malformed
        OSError,  # no network (requests' errors are OSErrors), disk full
        exceptions.BackendError,
        exceptions.CredentialError,
        exceptions.DataCorruptionError,
        exceptions.NotFoundError,
        exceptions.UnauthenticatedError,
    ) as error:
        raise UserError(f"source {uri}: {_advice(error, requests.ConnectionError)}") from error
    return open_folder(uri, Path(folder))


def _advice(error: Exception, no_network: type[Exception]) -> str:
    if isinstance(error, no_network):
        return "Kaggle cannot be reached; check the network, or give a downloaded folder or .zip"
    reason = " ".join(str(error).split())
    return (
        f"{reason}; the form is kaggle:owner/dataset, e.g. "
        "kaggle:mateuszbuda/lgg-mri-segmentation, and a private data set needs KAGGLE_USERNAME "
        "and KAGGLE_KEY"
    )

"""Places that weights are fetched from."""

import importlib.util
import logging
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import certifi

from components.shared.errors import OutageError, UserError
from components.shared.model.settings import Network
from components.shared.model.weights_uri import IMAGENET, WEIGHTS_FORMS, is_weights_uri
from components.shared.storage.http import authorities
from components.shared.storage.store import explain_disk, open_store

logger = logging.getLogger(__name__)

_TIMEOUT_S = 60.0
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")


@dataclass(frozen=True)
class Fetched:
    """Local files of fetched weights.

    Attributes:
        weights: File of the tensors.
        config: `config.json` of a model that brainseg stored; empty for other weights.
    """

    weights: Path
    config: str = ""


def is_source(source: str) -> bool:
    """Returns whether a text names weights that can be fetched."""
    return source.startswith(IMAGENET) or is_weights_uri(source)


def fetch_source(source: str, folder: Path) -> Fetched:
    """Fetches weights into a local folder, or finds them where they are on this machine.

    Args:
        source: URI of the weights, or `imagenet:ENCODER`.
        folder: Folder for the files.

    Raises:
        UserError: If the source is not understood, does not answer, or has no such file.
    """
    scheme = source.partition(":")[0] if not source.startswith("/") else "file"
    fetch = _SCHEMES.get(scheme)
    if fetch is None or not is_source(source):
        raise UserError(
            f"weights {source} are not understood; give imagenet:ENCODER, {WEIGHTS_FORMS}"
        )
    with explain_disk(f"weights {source}"):
        return fetch(source, folder)


def local_path(source: str) -> Path | None:
    """Path of weights on this machine; `None` for other sources."""
    if source.startswith("/"):
        return Path(source)
    return Path(unquote(urlsplit(source).path)) if source.startswith("file://") else None


def _from_file(source: str, folder: Path) -> Fetched:
    path = local_path(source)
    assert path is not None
    if path.is_dir():
        return _stored_model(str(path), folder, source)
    if not path.is_file():
        raise UserError(f"weights {source}: there is no such file on this machine")
    return Fetched(path)


def _from_bucket(source: str, folder: Path) -> Fetched:
    parent, _, name = source.rpartition("/")
    try:
        open_store(parent).download(name, folder / name)
    except KeyError as error:
        raise UserError(f"weights {source}: there is no such object") from error
    return Fetched(folder / name)


def _from_web(source: str, folder: Path) -> Fetched:
    path = folder / (PurePosixPath(urlsplit(source).path).name or "weights")
    context = ssl.create_default_context(cafile=certifi.where())
    context.load_verify_locations(authorities())  # those of an own authority, if one is named
    try:
        with urllib.request.urlopen(source, timeout=_TIMEOUT_S, context=context) as answer:
            expected = answer.headers.get("content-length")
            with open(path, "wb") as file:
                shutil.copyfileobj(answer, file)
    except urllib.error.HTTPError as error:
        kind = OutageError if error.code >= 500 else UserError
        raise kind(f"weights {source}: the server answers {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise OutageError(_unreachable(source, error.reason)) from error
    if expected and path.stat().st_size != int(expected):
        raise OutageError(f"weights {source}: the connection ended early; try again")
    return Fetched(path)


def _from_mlflow(source: str, folder: Path) -> Fetched:
    from mlflow.exceptions import MlflowException

    from components.shared.tracking.refusals import explaining_files
    from components.shared.tracking.server import connect

    with explaining_files():
        connect()
    if not source.endswith(_SUFFIXES):
        return _stored_model(source, folder, source)
    from mlflow.artifacts import download_artifacts

    try:
        return Fetched(Path(download_artifacts(artifact_uri=source, dst_path=str(folder))))
    except (MlflowException, OSError) as error:
        raise UserError(f"weights {source} cannot be fetched: {error}") from error


def _stored_model(uri: str, folder: Path, source: str) -> Fetched:
    from mlflow.exceptions import MlflowException

    from components.shared.model.model_folder import BadModelError, read_config
    from components.shared.model.segmenter import find_files

    try:
        config, weights = find_files(uri, str(folder))
        checked = read_config(config).model_dump_json()
    except (BadModelError, MlflowException, OSError) as error:
        raise UserError(f"weights {source} cannot be fetched: {error}") from error
    return Fetched(weights, checked)


def _from_package(source: str, folder: Path) -> Fetched:
    package, _, inner = source.removeprefix("package:").partition("/")
    found = importlib.util.find_spec(package)  # imports nothing: the name has no dots
    places = list(found.submodule_search_locations or ()) if found else []
    if not places:
        raise UserError(f"weights {source}: package {package} is not installed here")
    path = Path(places[0], inner)
    if ".." in Path(inner).parts or not path.is_file():
        raise UserError(f"weights {source}: package {package} has no such file")
    return Fetched(path)


def _from_library(source: str, folder: Path) -> Fetched:
    """Fetches an encoder's ImageNet weights in the form in which the library loads them."""
    from safetensors.torch import save_file
    from segmentation_models_pytorch.encoders import get_encoder

    from components.shared.model.library import check_encoder, check_weights

    encoder = source.removeprefix(IMAGENET)
    check_encoder(Network(encoder=encoder), "weights")
    check_weights(Network(encoder=encoder), "weights")
    try:
        tensors = get_encoder(encoder, weights="imagenet").state_dict()
    except OSError as error:  # hub errors and lost connections are OSErrors
        raise UserError(
            f"{_unreachable(source, type(error).__name__)}; or start from random ones by "
            "encoder_weights=none"
        ) from error
    save_file({name: one.contiguous() for name, one in tensors.items()}, folder / "weights")
    return Fetched(folder / "weights")


def _unreachable(source: str, reason: object) -> str:
    return (
        f"weights {source} cannot be downloaded ({reason}); where there is a network, run "
        f"`brainseg weights fetch {source} --store STORE` with the store of the run"
    )


_SCHEMES: dict[str, Callable[[str, Path], Fetched]] = {
    "file": _from_file,
    "s3": _from_bucket,
    "http": _from_web,
    "https": _from_web,
    "models": _from_mlflow,
    "runs": _from_mlflow,
    "package": _from_package,
    "imagenet": _from_library,
}

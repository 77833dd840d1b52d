"""The stored form of a segmenter: `config.json` and `model.safetensors`.

Both lie in the folder `segmenter` of an MLflow model folder. Nothing in them is evaluated or
unpickled, and a network by `package.module:function` is imported only where it is allowed (see
`components.shared.model.user_networks`).

Weights are stored under their names in the module, e.g. `network.encoder.conv1.weight`. These
names (ours, and those of segmentation_models_pytorch and timm) and the fields of `Network` are a
stored format, and so is their preprocessing. After a change of either, raise `SCHEMA_VERSION`;
`tests/components/shared/model/stored` has a model of the oldest version that must load and predict
as before. Version 1, of brainseg 0.2, has the weights of unused modules too, finds the head by the
largest voxel, lists the names of the channels alone, and calls the reference `flair`.
"""

import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, ValidationError, field_validator
from pydantic_core import from_json
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from components.shared.config import Config
from components.shared.dataset.channels import LGG_CHANNELS, LGG_TARGETS, Channels, Target
from components.shared.errors import UserError
from components.shared.model.network import (
    EnsembleSegmenter,
    PairedSegmenter,
    VolumeSegmenter,
    build_segmenter,
)
from components.shared.model.settings import Network

AnySegmenter = VolumeSegmenter | PairedSegmenter | EnsembleSegmenter

SCHEMA_VERSION = 2
_READABLE = (1, 2)

CONFIG_FILE = "segmenter/config.json"
WEIGHTS_FILE = "segmenter/model.safetensors"

_LARGEST_CONFIG = 2**16  # bytes
_LARGEST_HEADER = 2**23  # bytes; a network of 2,000 tensors has 0.25 MB
_SPARE_WEIGHTS = 300_000_000  # that a library makes and drops, e.g. stages after encoder_depth


class BadModelError(Exception):
    """A model cannot be loaded; the text is the reason, without the model's name."""


class SegmenterConfig(Config):
    """Content of `config.json`.

    Attributes:
        schema_version: Version of the stored form.
        brainseg_version: Version that stored the model.
        channels: Channels and type of the volumes.
        targets: What the network finds; not stored where it is the tumour of the LGG set.
        network: Network and preprocessing.
        flair_network: The same for scans that lack a sequence; `None` if there is one network.
        members: Number of networks, or pairs, whose probabilities are averaged.
        threshold: Probability from which a pixel is tumour. It holds if MLflow knows no other.
    """

    schema_version: Literal[1, 2] = 2
    brainseg_version: str = Field(max_length=50)
    channels: Channels = LGG_CHANNELS
    targets: tuple[Target, ...] = Field(
        default=LGG_TARGETS, min_length=1, exclude_if=lambda found: found == LGG_TARGETS
    )
    network: Network
    flair_network: Network | None = None
    members: int = Field(default=1, ge=1, le=50, exclude_if=lambda members: members == 1)
    threshold: float | None = Field(default=None, ge=0, le=1)

    @field_validator("channels", mode="before")
    @classmethod
    def _from_names(cls, channels: object) -> object:
        return {"names": channels} if isinstance(channels, list) else channels

    @field_validator("network", "flair_network", mode="before")
    @classmethod
    def _rename_sequences(cls, network: object) -> object:
        old = isinstance(network, dict) and network.get("sequences") == "flair"
        return {**network, "sequences": "reference"} if old else network  # type: ignore[dict-item]


def write_segmenter(segmenter: AnySegmenter, folder: Path) -> None:
    """Writes both files of a segmenter on the CPU into an existing MLflow model folder."""
    members = list(segmenter.members) if isinstance(segmenter, EnsembleSegmenter) else [segmenter]
    first = members[0]
    pair = (first.whole, first.flair) if isinstance(first, PairedSegmenter) else None
    config = SegmenterConfig(
        brainseg_version=_own_version(),
        channels=segmenter.channels,
        targets=segmenter.targets,
        network=(pair[0] if pair else first).settings,
        flair_network=pair[1].settings if pair else None,
        members=len(members),
    )
    weights = {
        # a copy: safetensors refuses tensors that use the same memory
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in segmenter.state_dict().items()
    }
    (folder / CONFIG_FILE).parent.mkdir()
    (folder / CONFIG_FILE).write_text(config.model_dump_json(indent=2), encoding="utf-8")
    save_file(weights, folder / WEIGHTS_FILE)


def read_segmenter(config_file: Path, weights_file: Path) -> tuple[AnySegmenter, SegmenterConfig]:
    """Builds a segmenter from its stored form.

    The files may come from anywhere. Memory is bounded by the size of the weights file.

    Returns:
        The segmenter in eval mode on the CPU, and its configuration.

    Raises:
        BadModelError: If the files hold anything but a segmenter of this schema version.
        OSError: If they cannot be read.
    """
    config = read_config(config_file)
    _check_header(weights_file)
    try:
        with safe_open(weights_file, framework="pt") as weights:
            shapes = {
                name: tuple(weights.get_slice(name).get_shape())
                for name in weights.keys()  # noqa: SIM118  # it is no mapping
            }
            segmenter = _build(config, sum(torch.Size(shape).numel() for shape in shapes.values()))
            _check_shapes(shapes, segmenter)
            for name, tensor in segmenter.state_dict().items():
                tensor.copy_(_checked(weights.get_tensor(name), tensor.dtype, name))
    except SafetensorError as error:
        raise BadModelError(f"its model.safetensors is damaged: {_one_line(error)}") from error
    return segmenter.eval(), config


def shown(text: object, most: int = 120) -> str:
    """Quotes a text from a model for a message: one short line of ASCII."""
    written = ascii(text)
    return written if len(written) <= most else f"{written[: most - 10]}...{written[-1]}"


def read_config(path: Path) -> SegmenterConfig:
    """Reads `config.json`.

    Raises:
        BadModelError: If it is anything but the configuration of a segmenter.
    """
    _check_file(path)
    with open(path, "rb") as file:
        text = file.read(_LARGEST_CONFIG + 1)
    if len(text) > _LARGEST_CONFIG:
        raise BadModelError(f"its config.json has more than {_LARGEST_CONFIG} bytes")
    try:
        values = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise BadModelError(f"its config.json is not valid JSON: {_one_line(error)}") from error
    _check_schema(values)
    try:
        return SegmenterConfig.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        place = shown(".".join(map(str, problem["loc"])))
        raise BadModelError(
            f"its config.json has {shown(problem['input'])} at {place}: {problem['msg']}"
        ) from error


def _check_schema(values: object) -> None:
    if not isinstance(values, dict):
        raise BadModelError("its config.json is not an object")
    version = values.get("schema_version")
    if version not in _READABLE:
        writer = shown(values.get("brainseg_version"))
        raise other_schema(f"schema version {shown(version)} (of brainseg {writer})")


def other_schema(found: str) -> BadModelError:
    """The error for a model that another version of brainseg stored, e.g. `schema version 7`."""
    return BadModelError(
        f"it has {found}, but brainseg {_own_version()} reads schema version {_READABLE[0]} to "
        f"{SCHEMA_VERSION}; "
        "train the model again with this version, or use the version that stored it"
    )


def _own_version() -> str:
    return metadata.version("brainseg")


def _check_file(path: Path) -> None:
    # lstat: a link, a pipe or a device could lead anywhere, or block
    for part in (path, path.parent):
        if part.is_symlink():
            raise BadModelError(f"its {part.name} is a link")
    if not stat.S_ISREG(path.lstat().st_mode):
        raise BadModelError(f"its {path.name} is not a file")


def _check_header(path: Path) -> None:
    # safetensors itself accepts headers of 100 MB
    _check_file(path)
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > _LARGEST_HEADER:
        raise BadModelError("its model.safetensors has no header of safetensors")


def _build(config: SegmenterConfig, stored: int) -> AnySegmenter:
    with _limited_weights(stored + _SPARE_WEIGHTS), torch.random.fork_rng(devices=[]):
        members = [_build_member(config) for _ in range(config.members)]
    return EnsembleSegmenter(members) if len(members) > 1 else members[0]


def _build_member(config: SegmenterConfig) -> VolumeSegmenter | PairedSegmenter:
    robust = config.schema_version > 1
    whole = _build_one(config.network, config, "network", robust=robust)
    if config.flair_network is None:
        return whole
    flair = _build_one(config.flair_network, config, "flair_network", robust=robust)
    return PairedSegmenter(whole, flair)


def _build_one(
    settings: Network, config: SegmenterConfig, place: str, *, robust: bool
) -> VolumeSegmenter:
    random = settings.model_copy(update={"encoder_weights": "none"})
    try:
        segmenter = build_segmenter(
            random, place, is_tried=False, channels=config.channels, targets=config.targets
        )
    except UserError as error:
        raise BadModelError(f"its network cannot be built: {_one_line(error)}") from error
    segmenter.settings, segmenter.robust = settings, robust
    return segmenter


@contextmanager
def _limited_weights(most: int) -> Iterator[None]:
    """Refuses networks of more weights; the hook runs before a weight's memory is filled."""
    built = 0

    def count(_module: nn.Module, _name: str, weight: Tensor | None) -> None:
        nonlocal built
        built += 0 if weight is None else weight.numel()
        if built > most:
            raise BadModelError("its config.json describes a larger network than its weights are")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def _check_shapes(stored: Mapping[str, tuple[int, ...]], segmenter: AnySegmenter) -> None:
    built = {name: tuple(tensor.shape) for name, tensor in segmenter.state_dict().items()}
    for name in sorted({*stored, *built}):
        found, expected = stored.get(name, "missing"), built.get(name, "none")
        if found != expected and (name in built or not _is_unused(name, segmenter)):
            raise BadModelError(
                f"its weights do not fit its network: {shown(name)} is {found}, expected {expected}"
            )


def _is_unused(name: str, segmenter: AnySegmenter) -> bool:
    """Returns whether a tensor is of a module that `build_segmenter` drops."""
    while name := name.rpartition(".")[0]:
        with suppress(AttributeError):  # there is no such module
            return isinstance(segmenter.get_submodule(name), nn.Identity)
    return False


def _checked(stored: Tensor, expected: torch.dtype, name: str) -> Tensor:
    if stored.dtype != expected:
        raise BadModelError(f"its weights {name} are {stored.dtype}, not {expected}")
    if not stored.isfinite().all():
        raise BadModelError(f"its weights {name} hold NaN or infinity")
    return stored


def _one_line(error: BaseException) -> str:
    return shown(str(error).partition("\n")[0] or type(error).__name__, most=400)[1:-1]

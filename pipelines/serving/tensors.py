"""Tensors of the open inference protocol (V2), as JSON."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, ValidationError

from components.shared.config import Config
from components.shared.dataset.channels import Channels
from components.shared.dataset.volumes import Probability, Voxels
from components.shared.errors import UserError
from components.shared.reading.scans import MIB, BadScanError
from components.shared.reading.workers import Limits, Refused, run_in_workers
from pipelines.serving.loaded import LoadedModel
from pipelines.serving.settings import ServeSettings
from pipelines.serving.upload import CPU_S

INPUT, OUTPUT = "image", "probability"

_RANGES: dict[str, tuple[np.dtype[Any], float, float]] = {
    "UINT8": (np.dtype("uint8"), 0.0, 255.0),
    "INT16": (np.dtype("int16"), -32768.0, 32767.0),
    "FP32": (np.dtype("float32"), -3.4e38, 3.4e38),
}
_NAMES = {dtype.name: name for name, (dtype, _, _) in _RANGES.items()}


class BadRequestError(UserError):
    """A request that is not of the protocol; the text is one sentence."""


class _Tensor(Config):
    """An input tensor.

    Attributes:
        name: Any name: there is one input.
        shape: slices, height, width, channels.
        datatype: Type of the data.
        parameters: Not used.
        data: Values, flat or nested.
    """

    name: str = INPUT
    shape: tuple[int, ...]
    datatype: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    data: list[Any]


class _Request(Config):
    """Body of an inference request.

    Attributes:
        id: Returned as it is.
        parameters: Not used.
        inputs: One tensor.
        outputs: Not used: there is one output.
    """

    id: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    inputs: tuple[_Tensor, ...]
    outputs: tuple[Any, ...] = ()


def describe_model(model: LoadedModel) -> dict[str, Any]:
    """The metadata of a model."""
    segmenter = model.segmenter
    datatype = _NAMES[segmenter.channels.dtype]
    image = {"name": INPUT, "datatype": datatype, "shape": [-1, -1, -1, segmenter.channels.count]}
    shape = [len(segmenter.targets)] * (len(segmenter.targets) > 1) + [-1, -1, -1]
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": "brainseg",
        "inputs": [image],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": shape}],
    }


def infer(path: Path, model: LoadedModel, settings: ServeSettings) -> bytes:
    """Answers an inference request.

    Args:
        path: File with its body.
        model: Model to use.
        settings: Limits.

    Returns:
        JSON with the probability of each target.

    Raises:
        UserError: If the request is not valid, or the model refuses the volume.
    """
    limits = settings.predict.limits
    work = _Reader(model.segmenter.channels, limits.max_volume_mib)
    worker = Limits(limits.worker_bytes, CPU_S)
    ((_, read),) = run_in_workers(work, [path], workers=1, limits=worker)
    if isinstance(read, Refused):
        raise BadRequestError(f"the request is refused: {read.reason}")
    request_id, image = read
    probability = model.segmenter(image)
    return json.dumps(_answer(request_id, probability, model)).encode()


class _Reader:
    """Reads a request; can be pickled and used in another process."""

    def __init__(self, channels: Channels, max_volume_mib: float) -> None:
        self._channels, self._max_volume_mib = channels, max_volume_mib

    def __call__(self, path: Path) -> tuple[str, Voxels]:
        try:
            request = _Request.model_validate(json.loads(path.read_bytes()))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "the body"
            raise BadScanError(f"{place}: {first['msg']}") from None
        except (ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BadScanError(f"its body is not JSON ({reason})") from None
        if len(request.inputs) != 1:
            raise BadScanError(f"it has {len(request.inputs)} inputs, expected one image")
        return request.id, self._image(request.inputs[0])

    def _image(self, tensor: _Tensor) -> Voxels:
        self._check(tensor)
        dtype, least, most = _RANGES[tensor.datatype]
        try:
            values = np.array(tensor.data)
        except ValueError:
            raise BadScanError("its data are not an array of one shape") from None
        if values.dtype.kind not in "iuf" or values.size != math.prod(tensor.shape):
            raise BadScanError(
                f"its data are not {math.prod(tensor.shape)} numbers, as its shape declares"
            )
        low, high = values.min(), values.max()
        if not (low >= least and high <= most):  # NaN fails both
            raise BadScanError(f"its data are from {low:g} to {high:g}, not {tensor.datatype}")
        if values.dtype.kind == "f" and dtype.kind != "f":
            raise BadScanError(f"its data are not whole numbers, as {tensor.datatype} are")
        image: Voxels = values.astype(dtype).reshape(tensor.shape)
        return image

    def _check(self, tensor: _Tensor) -> None:
        names, shape = self._channels.names, tensor.shape
        if tensor.datatype not in _RANGES:
            allowed = ", ".join(_RANGES)
            raise BadScanError(f"its datatype is {tensor.datatype[:20]!r}, expected {allowed}")
        if len(shape) != 4 or min(shape) < 1 or shape[3] != len(names):
            raise BadScanError(
                f"its shape is {list(shape)[:8]}, expected [slices, height, width, {len(names)}] "
                f"with the channels {', '.join(names)}"
            )
        mib = math.prod(shape) * 4 / MIB
        if mib > self._max_volume_mib:
            raise BadScanError(
                f"it declares {mib:.0f} MiB of voxels, the limit is "
                f"max_volume_mib={self._max_volume_mib:g}"
            )


def _answer(request_id: str, probability: Probability, model: LoadedModel) -> dict[str, Any]:
    shown = probability[0] if len(probability) == 1 else probability
    output = {
        "name": OUTPUT,
        "datatype": "FP32",
        "shape": list(shown.shape),
        "data": shown.ravel().tolist(),
    }
    return {
        "id": request_id,
        "model_name": model.name,
        "model_version": model.version,
        "parameters": {"threshold": model.threshold},
        "outputs": [output],
    }

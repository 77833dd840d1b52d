"""Files of weights: safetensors, or a state dict of torch. Reading one runs no code of it."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from components.shared.errors import UserError


def read_weights(path: Path, name: str) -> dict[str, Tensor]:
    """Reads the tensors of a file, in its order; what is no tensor is left out.

    Args:
        path: File.
        name: Name of the weights in a message, e.g. their URI.

    Raises:
        UserError: If it is neither safetensors nor a state dict, is damaged, or holds code.
    """
    with open(path, "rb") as file:
        start = file.read(16)
    if start.lstrip()[:1] == b"<":
        raise UserError(f"weights {name}: this is a web page or XML; use the address of the file")
    found = _read_safetensors(path, name) if start[8:9] == b"{" else _read_torch(path, name)
    if not found:
        raise UserError(
            f"weights {name}: there are no tensors in it; use safetensors, or the state dict of a "
            "model (torch.save(model.state_dict(), ...))"
        )
    return found


def _read_safetensors(path: Path, name: str) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise UserError(f"weights {name} are truncated or damaged; fetch them again") from error


def _read_torch(path: Path, name: str) -> dict[str, Tensor]:
    try:
        return _tensors(torch.load(path, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):
            raise UserError(
                f"weights {name} hold Python objects besides tensors, whose loading could run "
                "code; save the state dict alone, or convert it to safetensors"
            ) from error
        raise _unreadable(name) from error
    # torch's refusals: of its own format, of other formats; the others of what is no pickle
    except (RuntimeError, EOFError, LookupError, ValueError, AttributeError) as error:
        raise _unreadable(name) from error


def _tensors(loaded: object) -> dict[str, Tensor]:
    """Tensors of a state dict, or of the largest one in a checkpoint such as Lightning's."""
    if not isinstance(loaded, Mapping):
        return {}
    own = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
    inner = [_tensors(value) for value in loaded.values() if isinstance(value, Mapping)]
    return max([own, *inner], key=len)


def _unreadable(name: str) -> UserError:
    # without torch's text, which advises to run the code
    return UserError(
        f"weights {name} are truncated, or neither safetensors nor a state dict of torch; fetch "
        "them again, or convert them to safetensors"
    )

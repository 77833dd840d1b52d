"""Networks by `package.module:function`, from the user's installed code.

To import a module runs its code, and the name of the function may come from a recipe or from the
`config.json` of a model of unknown origin. So only functions that the environment variable
`BRAINSEG_ALLOWED_NETWORKS` lists are imported: by training and by loading alike, so that a
network that can be trained can also be loaded.
"""

import importlib
import inspect
import os
import re
from collections.abc import Callable
from typing import cast

from torch import nn

from components.shared.errors import UserError
from components.shared.model.settings import Network

ALLOWED = "BRAINSEG_ALLOWED_NETWORKS"


def build_user_network(settings: Network, in_channels: int, classes: int, place: str) -> nn.Module:
    """Calls the function that the settings name, with those settings that are its parameters.

    Raises:
        UserError: If the function is not allowed, cannot be imported or requires other arguments.
    """
    function = _import(settings.architecture, f"{place}.architecture={settings.architecture}")
    offered = {"in_channels": in_channels, "classes": classes, **dict(settings)}
    wanted = inspect.signature(function).parameters.values()
    required = [
        one.name
        for one in wanted
        if one.default is one.empty and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    ]
    missing = [name for name in required if name not in offered]
    if missing:
        raise UserError(
            f"{place}.architecture={settings.architecture} requires {', '.join(missing)}; the "
            f"arguments of a network function can be {', '.join(offered)}"
        )
    network = function(**{one.name: offered[one.name] for one in wanted if one.name in offered})
    if not isinstance(network, nn.Module):
        raise UserError(
            f"{place}.architecture={settings.architecture} returned {type(network).__name__}, not "
            "a torch.nn.Module"
        )
    return network


def _import(name: str, shown: str) -> Callable[..., object]:
    if name not in re.split(r"[,\s]+", os.environ.get(ALLOWED, "")):
        raise UserError(
            f"{shown} is not allowed: only functions in the environment variable {ALLOWED} are "
            f"imported; if you trust this code, set {ALLOWED}={name} where the steps run"
        )
    function = import_object(name, shown)
    if not callable(function):
        raise UserError(f"{shown} is {type(function).__name__}, not a function or class")
    return cast(Callable[..., object], function)


def import_object(name: str, shown: str) -> object:
    """Imports `package.module:attribute`; `shown` is the setting with its value in a message.

    Raises:
        UserError: If there is no such module or attribute.
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{shown} cannot be imported ({error}); install its package, here and where the "
            "steps run"
        ) from error

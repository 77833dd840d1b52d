"""Classes of libraries by name, and instances of them with a recipe's options."""

import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, TypeVar

from components.shared.config import in_words, nearest
from components.shared.errors import UserError
from components.shared.model.user_networks import import_object

T = TypeVar("T")


def classes_of(module: ModuleType, kind: type[T]) -> dict[str, type[T]]:
    """The subclasses of a class that a module has, by name, in the module's order."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, kind) and value is not kind
    }


def find_class(
    name: str, kind: type[T], known: Mapping[str, Callable[..., T]], sources: str, place: str
) -> Callable[..., T]:
    """Finds a class by its name or imports it.

    Args:
        name: One of `known`, or `package.module:Class`. An imported object that is no subclass of
            `kind` is never called.
        kind: Base class of the allowed ones.
        known: Classes by name.
        sources: Names and modules in a message, e.g. `adamw, muon, the classes of torch.optim`.
        place: Setting in a message, e.g. `train.optimizer.loss`.

    Raises:
        UserError: If there is no such class or it has another base class.
    """
    if ":" not in name:
        if name not in known:
            near = in_words(nearest(name, known, most=3))
            raise UserError(
                f"{place}={name} is not known{near}; there are {sources}, and package.module:Class"
            )
        return known[name]
    found = import_object(name, f"{place}={name}")
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise UserError(f"{place}={name} is not a subclass of {kind.__module__}.{kind.__name__}")
    return found


def make(
    factory: Callable[..., T],
    *positional: object,
    fixed: Mapping[str, Any],
    options: Mapping[str, Any],
    place: str,
) -> T:
    """Calls a class or function with a recipe's options.

    Args:
        factory: Class or function of a library.
        *positional: Its first arguments.
        fixed: Arguments that no option may replace.
        options: Arguments from the recipe.
        place: Setting and name in a message, e.g. `train.optimizer.loss=TverskyLoss`.

    Raises:
        UserError: If an option is unknown, missing or refused by the factory.
    """
    parameters = list(inspect.signature(factory).parameters.values())[len(positional) :]
    accepted = [one.name for one in parameters if one.kind not in _VARIADIC]
    free = [name for name in accepted if name not in fixed]
    any_name = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)
    for option in options:
        if option in fixed:
            raise UserError(f"{place}: {option} is no option; the training sets it")
        if not (any_name or option in accepted):
            raise UserError(
                f"{place} does not accept {option}{in_words(nearest(option, free))}; its options: "
                f"{', '.join(free) or 'none'}"
            )
    try:
        return factory(*positional, **fixed, **options)
    except Exception as error:  # of any kind: it is not our code
        raise UserError(f"{place} with {dict(options)}: {error}") from error


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

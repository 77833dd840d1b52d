"""The kinds of sources, found by their modules, and the opening of a source.

A kind is a module of this folder that declares `SCHEME`, `FORM` and `SHARED`, and optionally
`EXTRA`, and defines `check_form` and `open_uri`; docs/how-to/add-a-source.md shows one. The
constants are read from the module's text: help texts must not wait for the libraries of all kinds.
"""

import ast
import contextlib
import functools
import importlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from components.shared.errors import UserError
from components.shared.reading.sources.source import Source

_CONSTANTS = ("SCHEME", "FORM", "SHARED", "EXTRA")


class SourceModule(Protocol):
    """Functions of a kind's module."""

    def check_form(self, uri: str) -> None:
        """Checks a URI of this scheme without opening it.

        Raises:
            UserError: If it has another form.
        """

    def open_uri(self, uri: str, max_archive_gib: float) -> AbstractContextManager[Source]:
        """Opens a source; temporary files are removed when the context ends.

        Raises:
            UserError: If it has another form, or nothing readable is there.
            ImportError: If a package of `EXTRA` is not installed.
        """


@dataclass(frozen=True)
class SourceKind:
    """Declaration of a kind of source.

    Attributes:
        name: Name of its module.
        scheme: Start of its URIs, e.g. `s3://`; empty for local paths.
        form: Form of its URIs in help texts and messages, e.g. `s3://bucket/prefix`.
        shared: Whether other machines, such as pods, can read it.
        extra: Extra of the distribution with its packages; empty if it needs none.
    """

    name: str
    scheme: str
    form: str
    shared: bool
    extra: str = ""

    @property
    def module(self) -> SourceModule:
        """The module, imported when it is needed."""
        return cast(SourceModule, importlib.import_module(f"{__package__}.{self.name}"))


@functools.cache
def source_kinds() -> tuple[SourceKind, ...]:
    """All kinds of sources, local paths first."""
    declared = {path.stem: _constants(path) for path in Path(__file__).parent.glob("*.py")}
    kinds = [SourceKind(name=name, **found) for name, found in declared.items() if found]
    return tuple(sorted(kinds, key=lambda kind: kind.scheme))


def source_forms(*, shared: bool = False) -> str:
    """The forms of a source's URI for help texts and messages.

    Args:
        shared: Lists only sources that other machines can read.
    """
    *others, last = [kind.form for kind in source_kinds() if kind.shared or not shared]
    return f"{', '.join(others)} or {last}"


def is_local_path(uri: str) -> bool:
    """Returns whether a source's or a store's URI is a path of this machine."""
    return "://" not in uri and not _kind(uri).scheme


@contextlib.contextmanager
def open_source(uri: str, max_archive_gib: float = 64.0) -> Iterator[Source]:
    """Opens a source; temporary files that it needs are removed afterwards.

    Args:
        uri: URI in one of the forms that `source_forms` lists.
        max_archive_gib: Largest unpacked size of an archive.

    Raises:
        UserError: If `uri` has another form, nothing readable is there, or a package is missing.
    """
    kind = _kind(uri)
    if not kind.scheme and ("://" in uri or not uri):
        raise UserError(f"source {uri!r} is not understood; give {source_forms()}")
    with contextlib.ExitStack() as stack:
        try:
            source = stack.enter_context(kind.module.open_uri(uri, max_archive_gib))
        except ImportError as error:
            if not kind.extra:
                raise
            raise UserError(
                f"source {uri} needs the package {error.name}; install it with "
                f"`pip install 'brainseg[{kind.extra}]'`"
            ) from error
        yield source


def require_shared_source(uri: str) -> None:
    """Refuses a source that other machines cannot read, or whose form is wrong.

    Args:
        uri: URI that a step on another machine will open.

    Raises:
        UserError: If it is local, or has none of the known forms.
    """
    kind = _kind(uri)
    if not kind.shared:
        raise UserError(
            f"source {uri!r} can be read on this machine only, or is not understood; give "
            f"{source_forms(shared=True)}; copy local files to a bucket first"
        )
    kind.module.check_form(uri)


def _kind(uri: str) -> SourceKind:
    local, *others = source_kinds()
    return next((kind for kind in others if uri.startswith(kind.scheme)), local)


def _constants(path: Path) -> dict[str, Any]:
    return {
        ast.unparse(node.targets[0]).lower(): ast.literal_eval(node.value)
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in _CONSTANTS
    }

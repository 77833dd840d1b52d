"""Checks of the installation: the interpreter and the packages."""

import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

# `packaging` is imported where it is needed: it may be missing
from components.shared.errors import UserError
from pipelines.doctor.check import INSTALL, Check, Status
from pipelines.extras import DISTRIBUTION, USES, installation, missing_packages

_CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


def check_python(version: str = platform.python_version()) -> Check:
    """Check the interpreter's version."""
    found = f"{version} at {sys.executable}"
    try:
        from packaging.specifiers import SpecifierSet

        allowed = metadata.metadata(DISTRIBUTION)["Requires-Python"]
    except (ImportError, metadata.PackageNotFoundError):  # the check of packages reports it
        return Check("Python", "ok", found)
    if SpecifierSet(allowed).contains(version, prereleases=True):
        return Check("Python", "ok", found)
    return Check("Python", "error", found, f"use a Python {allowed}")


def check_packages(constraints: Path = _CONSTRAINTS) -> Check:
    """Check that all packages are installed, in the tested versions."""
    try:
        missing = missing_packages(["", *USES])
    except ImportError as error:
        return Check("packages", "error", f"cannot be listed: {error}", INSTALL)
    except UserError as error:
        return Check("packages", "error", str(error))  # its message has the advice
    if missing:
        found = "; ".join(
            f"{', '.join(names)} ({f'extra {extra}, for {USES[extra]}' if extra else 'for all'})"
            for extra, names in missing.items()
        )
        status: Status = "warning" if list(missing) == ["kaggle"] else "error"
        return Check("packages", status, f"not installed: {found}", installation(missing))
    if differing := list(_differing(constraints)):
        shown = ", ".join(differing[:5]) + (", ..." if len(differing) > 5 else "")
        advice = f"pip install --constraint {constraints.name} --editable '.[all]'"
        found = f"{len(differing)} differ from the tested versions: {shown}"
        return Check("packages", "warning", found, advice)
    version = metadata.version(DISTRIBUTION)
    return Check("packages", "ok", f"all installed ({DISTRIBUTION} {version})")


def _differing(constraints: Path) -> Iterator[str]:
    if not constraints.exists():
        return
    pins = (line.split("#")[0].strip() for line in constraints.read_text().splitlines())
    for name, equals, pinned in (pin.partition("==") for pin in pins):
        if not equals:
            continue
        try:
            found = metadata.version(name.strip())
        except metadata.PackageNotFoundError:
            continue  # of another platform or extra
        if found.partition("+")[0] != pinned.split(";")[0].strip().partition("+")[0]:
            yield f"{name.strip()} {found} ({pinned.strip()})"

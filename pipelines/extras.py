"""Optional dependencies (extras) of the distribution and missing packages."""

from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from typing import TYPE_CHECKING

from components.shared.errors import UserError
from components.shared.reading.sources.opening import source_kinds

if TYPE_CHECKING:  # imported when needed: `doctor` reports if it is missing
    from packaging.requirements import Requirement

DISTRIBUTION = "brainseg"
USES: Mapping[str, str] = {
    "trainer": "run, predict, serve, find-lr, gc and rollback",
    "pipelines": "run, find-lr, compile, submit and schedule",
    "dicom": "layouts of DICOM series",
    "mlflow-s3": "an MLflow whose clients write artifacts to a bucket",
    **{kind.extra: f"sources {kind.scheme}..." for kind in source_kinds() if kind.extra},
}


def require_extras(*extras: str) -> None:
    """Raises `UserError` with the command that installs what some extras lack."""
    missing = missing_packages(extras)
    if missing:
        packages = ", ".join(package for names in missing.values() for package in names)
        kind = "extra" if len(missing) == 1 else "extras"
        raise UserError(
            f"this needs the {kind} {', '.join(missing)} (not installed: {packages}); "
            + installation(missing)
        )


def installation(extras: Iterable[str]) -> str:
    """The command that installs some extras; the empty one stands for the plain installation."""
    named = ",".join(extra for extra in extras if extra)
    return f"pip install '{DISTRIBUTION}[{named}]'" if named else "pip install --editable ."


def missing_packages(extras: Iterable[str]) -> Mapping[str, list[str]]:
    """Packages that are missing or have the wrong version, by extra; "" is the plain installation.

    Raises:
        UserError: If the distribution itself is not installed.
        ImportError: If `packaging` is not installed.
    """
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError as error:
        raise UserError(f"{DISTRIBUTION} itself is not installed: {installation('')}") from error
    requirements = [Requirement(line) for line in lines]
    found = {extra: list(_missing(requirements, extra)) for extra in extras}
    return {extra: packages for extra, packages in found.items() if packages}


def _missing(requirements: "Iterable[Requirement]", extra: str) -> Iterator[str]:
    for requirement in requirements:
        if not _belongs(requirement, extra):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield requirement.name
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement.name}{requirement.specifier} (found {version})"


def _belongs(requirement: "Requirement", extra: str) -> bool:
    marker = requirement.marker
    if marker is None or marker.evaluate({"extra": ""}):
        return not extra
    return marker.evaluate({"extra": extra})

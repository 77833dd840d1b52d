"""Reference pages in Markdown, made from the code: commands, settings, metrics, pod profiles."""

import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from components.shared.config import Config
from components.shared.scoring.metrics import (
    BASELINE_SUFFIX,
    HIGH_SUFFIX,
    LOW_SUFFIX,
    METRICS,
    Metric,
)
from pipelines import cli, extras
from pipelines.placement.profiles import PodProfile, PodSettings, RunSettings, profile_names
from pipelines.settings.presets import STEPS, preset_names

_PIPELINES = Path(cli.__file__).parent
_LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "multiple of"}


def commands() -> str:
    """Every command with its options, from the typer application."""
    lines = [
        "# Commands",
        "Each command has `--help` with an example and exits with 0 only on success; see "
        "[exit codes](exit-codes.md). A user's mistake prints one message; `--debug` adds the "
        "traceback. With `--json`, the result is JSON on stdout and log lines go to stderr.",
        "A plain installation (`pip install .`) has `ingest`, `datasets` and `doctor`. The other "
        "commands name the extra that they need:",
        _table(("extra", "for"), [(f"`{name}`", use) for name, use in extras.USES.items()]),
    ]
    return _page(lines + list(_command(typer.main.get_command(cli.app), "brainseg", 1)))


def settings() -> str:
    """The settings of every step, from the pydantic classes."""
    lines = [
        "# Settings",
        "Settings have three sources, the later one wins: the defaults below, a "
        "[preset](presets.md), and `--set STEP.KEY=VALUE` on the command line (repeatable, the "
        "value in YAML). Unknown keys and values out of range are refused before anything "
        "starts, with the allowed ones and the nearest spelling.",
    ]
    seen: dict[type, str] = {}
    for step, kind in STEPS.items():
        lines += _sections(kind, step, seen)
    return _page(lines)


def presets() -> str:
    """Every preset's file, as it is."""
    lines = [
        "# Presets",
        "A preset is a YAML file with a section for each step. It lists what differs from the "
        "[defaults](settings.md). `--preset` takes one of these names or the path of your own "
        "file. Scores: [experiments](../experiments.md).",
    ]
    return _page(lines + list(_files(preset_names(), _PIPELINES / "presets")))


def pod_profiles() -> str:
    """The settings of a pod profile and the profiles that come with the package."""
    lines = [
        "# Pod profiles",
        "A pod profile is a YAML file with a section `run`, a section `all` for every step and "
        "one for each step that differs. `extends` names the profile whose settings hold "
        "otherwise. How to use one: [pod profiles](../how-to/pod-profiles.md).",
    ]
    seen: dict[type, str] = {PodProfile: ""}
    lines += _sections(RunSettings, "run", seen)
    lines += _sections(PodSettings, "STEP", seen, "all and each step")
    lines += _files(profile_names(), _PIPELINES / "profiles")
    return _page(lines)


def metrics() -> str:
    """Every metric, from the table that the aggregation reads."""
    rows = [(f"`{each.name}`", each.definition, ", ".join(_traits(each))) for each in METRICS]
    lines = [
        "# Metrics",
        "A prediction is a pixel with a probability of at least `evaluate.threshold`. The Dice "
        "of two masks is 2 |A and B| / (|A| + |B|), between 0 and 1. A metric that is not "
        "defined, such as a mean over nothing, is left out.",
        "Distances and volumes are in pixels unless the name says otherwise; a step between slices "
        "counts as one pixel. Those in millimeters and milliliters exist only if the spacing of "
        "every scored volume is known. The LGG set's files hold no spacing.",
        _table(("name", "definition", "remarks"), rows),
        "## Further names",
        _table(
            ("name", "meaning"),
            [
                (
                    f"`NAME{BASELINE_SUFFIX}`",
                    "The same metric for a prediction that marks nothing.",
                ),
                (
                    f"`NAME{LOW_SUFFIX}`, `NAME{HIGH_SUFFIX}`",
                    "95 % interval of the mean over patients: t on the logit scale. It covers 91 "
                    "to 94 % with 5 to 50 patients (`python -m tests.benchmarks.intervals`).",
                ),
            ],
        ),
        "To add one: [extend brainseg](../how-to/extend.md).",
    ]
    return _page(lines)


PAGES = {
    "reference/commands.md": commands,
    "reference/settings.md": settings,
    "reference/presets.md": presets,
    "reference/metrics.md": metrics,
    "reference/pod-profiles.md": pod_profiles,
}
"""The generated pages, by their path in docs/."""


def attribute_docs(kind: type) -> dict[str, str]:
    """The descriptions in the `Attributes:` section of a class docstring (Google style)."""
    _, _, section = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")
    found = re.findall(r"^    (\w+): (.*(?:\n(?:        .*|$))*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def sections_of(annotation: object) -> list[type[Config]]:
    """The classes of settings in a type, e.g. `Phase` in `tuple[Phase, ...] | None`."""
    return [each for each in _classes(annotation) if issubclass(each, Config)]


def _command(command: TyperCommand | TyperGroup, name: str, level: int) -> Iterator[str]:
    """One heading and table of options for a command, then its subcommands."""
    if level > 1:
        yield f"{'#' * level} {name}"
        yield from _prose(command.help or "")
    rows = [_option(each) for each in command.params if each.name != "help"]
    if rows:
        yield _table(("option", "value", "default", "meaning"), rows)
    if level > 1 and command.epilog:
        yield f"```text\n{inspect.cleandoc(command.epilog.replace(chr(8), ''))}\n```"
    for inner, found in getattr(command, "commands", {}).items():
        if not found.hidden:
            yield from _command(found, f"{name} {inner}", level + 1)


def _option(option: TyperOption | TyperArgument) -> tuple[str, str, str, str]:
    names = [*option.opts, *option.secondary_opts]
    is_flag, kind = getattr(option, "is_flag", False), _type(option.type_descriptor.annotation)
    default = "" if is_flag or option.default in (None, "") else f"`{option.default}`"
    if option.metavar and not option.opts[0].startswith("-"):
        names = [option.metavar]  # an argument
    elif option.metavar:
        kind = f"`{option.metavar}`"
    shown = ", ".join(f"`{name}`" for name in names)
    return (
        shown,
        "" if is_flag else kind,
        "required" if option.required else default,
        option.help or "",
    )


def _sections(
    kind: type[BaseModel], place: str, seen: dict[type, str], title: str = ""
) -> Iterator[str]:
    """One heading and table for a class of settings, then those of the classes in its fields."""
    seen[kind] = place
    yield f"{'#' * min(place.count('.') + 2, 4)} {title or place}"
    yield from _prose((kind.__doc__ or "").partition("Attributes:")[0])
    told = attribute_docs(kind)
    rows, inner = [], []
    for name, field in kind.model_fields.items():
        sections = sections_of(field.annotation)
        inner += [(each, f"{place}.{name}") for each in sections if each not in seen]
        rows.append((f"`{name}`", _allowed(field), _default(field), told.get(name, "")))
    if rows:
        yield _table(("key", "value", "default", "meaning"), rows)
    for each, path in inner:
        if each not in seen:
            yield from _sections(each, path, seen)


def _allowed(field: FieldInfo) -> str:
    limits = [*_limits(field.metadata)]
    return ", ".join([_type(field.annotation), *limits])


def _limits(metadata: Iterable[object]) -> Iterator[str]:
    for each in metadata:
        for name, sign in _LIMITS.items():
            if getattr(each, name, None) is not None:
                yield f"{sign} {getattr(each, name):g}"
        if isinstance(each, FieldInfo):
            yield from _limits(each.metadata)


def _type(kind: object) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in inner)
    if origin is Annotated:
        return ", ".join([_type(inner[0]), *_limits(inner[1:])])
    if origin in (Union, UnionType):
        return " or ".join("none" if each is NoneType else _type(each) for each in inner)
    if inner and issubclass(origin, Mapping):
        return f"mapping of {_type(inner[0])} to {_type(inner[1])}"
    if inner:
        return f"list of {_type(inner[0])}"
    if isinstance(kind, type) and issubclass(kind, Config):
        return "section"
    names = {str: "text", int: "integer", float: "number", bool: "true or false", Path: "path"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def _classes(annotation: object) -> Iterator[type]:
    inner = get_args(annotation)
    if not inner and isinstance(annotation, type):
        yield annotation
    for each in inner:
        yield from _classes(each)


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "none"
    if isinstance(value, BaseModel) or _holds_records(value):
        return "see below"
    plain = list(value) if isinstance(value, tuple) else value
    return f"`{json.dumps(plain)}`"


def _holds_records(value: object) -> bool:
    return isinstance(value, tuple) and any(isinstance(each, BaseModel) for each in value)


def _traits(metric: Metric) -> Iterator[str]:
    if metric.headline:
        yield "headline of reports"
    if metric.listed:
        yield "in lists of runs"
    if metric.baseline:
        yield "has a baseline"
    if metric.interval_of:
        yield "has an interval"
    if metric.champion_beats_baseline:
        yield "a champion beats its baseline"
    if metric.has_floor:
        yield "a champion reaches `register.min_patient_dice`"
    if metric.needs_geometry:
        yield "needs the spacing"
    if metric.undefined:
        yield f"`{metric.undefined}` counts the patients left out"


def _files(names: Iterable[str], folder: Path) -> Iterator[str]:
    for name in names:
        yield f"## {name}"
        yield f"```yaml\n{(folder / f'{name}.yaml').read_text('utf-8').strip()}\n```"


def _prose(text: str) -> Iterator[str]:
    """Paragraphs of a docstring; those with an example as code."""
    without_marks = inspect.cleandoc(text).replace("\b", "").replace("\\\n", "\n")
    for paragraph in without_marks.split("\n\n"):
        joined = " ".join(paragraph.split())
        if joined.startswith("Example: "):
            yield f"    {joined.removeprefix('Example: ')}"
        elif joined:
            yield joined


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(_cell(each) for each in line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _page(blocks: Iterable[str]) -> str:
    return "\n\n".join(blocks) + "\n"

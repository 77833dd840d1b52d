"""Presets: named settings for all steps of a run."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from components.aggregate.settings import AggregateSettings
from components.compare.settings import CompareSettings
from components.evaluate.settings import EvaluateSettings
from components.ingest.settings import IngestSettings
from components.notify.settings import NotifySettings
from components.profile.settings import ProfileSettings
from components.register.settings import RegisterSettings
from components.shared.config import Config, build_config, in_words, load_yaml, nearest
from components.shared.errors import UserError
from components.shared.tracking.identity import check_label
from components.split.settings import FoldSettings, SplitSettings
from components.train.recipe import Recipe
from pipelines.settings import yaml_files

STEPS: Mapping[str, type[Config]] = {
    "ingest": IngestSettings,
    "profile": ProfileSettings,
    "split": SplitSettings,
    "fold": FoldSettings,
    "train": Recipe,
    "compare": CompareSettings,
    "evaluate": EvaluateSettings,
    "aggregate": AggregateSettings,
    "register": RegisterSettings,
    "notify": NotifySettings,
}
"""The steps that have settings; each pipeline has some of them."""

RECIPES = "recipes"  # section of a preset and parameter of the pipeline `comparison`

_FOLDER = Path(__file__).parents[1] / "presets"
# Networks and parts of a recipe that are known to work; others are tried before a run
USUAL_ENCODERS = frozenset({"resnet18", "resnet34", "resnet50", "mobilenet_v2"})
USUAL_DEPTHS: Mapping[str, Collection[int]] = {
    "unet": (3, 4, 5),
    "unetplusplus": (3, 4, 5),
    "plain_unet": (3, 4, 5),
    "fpn": (5,),
}
USUAL_PARTS = frozenset({"bce", "dice", "adamw", "muon", "one_cycle", "cosine"})
_DEFAULT_RECIPES = Path(__file__).parents[1] / "recipes.yaml"

Preset = Mapping[str, Config]


@dataclass(frozen=True)
class PresetSummary:
    """Purpose and scores of a preset.

    Attributes:
        name: Value of `--preset`.
        purpose: Noun phrase, e.g. `a first run`.
        scores: Measured scores with their data set, or `not measured`.
    """

    name: str
    purpose: str
    scores: str


_SUMMARY = ("purpose", "scores")  # keys of a preset that are no sections


def preset_names() -> list[str]:
    """The presets that come with the package."""
    return yaml_files.names(_FOLDER)


def list_presets() -> list[PresetSummary]:
    """The presets that come with the package, with their purpose and scores."""
    contents = {name: yaml_files.read(name, _FOLDER, "preset") for name in preset_names()}
    return [
        PresetSummary(name, *(str(content[key]) for key in _SUMMARY))
        for name, content in contents.items()
    ]


def show_preset(name: str, changes: Iterable[str] = ()) -> str:
    """Renders every setting of a preset as YAML, which is a valid preset.

    Args:
        name: Name or path, see `load_preset`.
        changes: Changes, see `load_preset`.

    Raises:
        UserError: If `load_preset` does.
    """
    preset = load_preset(name, changes)
    settings = {step: config.model_dump(mode="json") for step, config in preset.items()}
    recipes = _read(name)[RECIPES]
    return yaml.safe_dump(settings | ({RECIPES: recipes} if recipes else {}), sort_keys=False)


def load_preset(
    name: str, changes: Iterable[str] = (), steps: Collection[str] = tuple(STEPS)
) -> Preset:
    """Reads a preset and applies changes to it.

    Args:
        name: One of `preset_names()`, or the path of a YAML file with the same sections. A preset
            may serve several pipelines: sections of other steps are checked and left out.
        changes: Texts `step.key=value` or `step.section.key=value`, with the value in YAML.
        steps: Steps of the pipeline, see `pipelines.graph.settings_of`.

    Returns:
        Validated settings of the steps.

    Raises:
        UserError: If there is no such preset, a setting is unknown or out of range, or a part of
            the recipe cannot be built (tried only if the libraries for it are installed).
    """
    sections = _with_changes(_read(name), changes, steps)
    preset = {step: build_config(kind, sections[step], step) for step, kind in STEPS.items()}
    if "train" in steps:
        _check(Recipe.model_validate(preset["train"]), "train")
    return {step: preset[step] for step in steps}


def load_recipes(name: str, changes: Iterable[str] = ()) -> dict[str, Recipe]:
    """Reads the recipes that a preset compares.

    An entry of its section `recipes` holds changes of the section `train`, or names a preset (or
    file) whose section `train` is used. A preset without that section has the entries of
    `pipelines/recipes.yaml`.

    Args:
        name: Name or path, see `load_preset`.
        changes: Texts `train.key=value` for all entries of the first kind, or
            `recipes.label.key=value` for one.

    Returns:
        The recipes by their labels.

    Raises:
        UserError: If an entry is not a valid recipe; the message names it.
    """
    sections = _read(name)
    sections[RECIPES] = sections[RECIPES] or load_yaml(_DEFAULT_RECIPES.read_text())
    sections = _with_changes(sections, changes, ("train", RECIPES))
    for label in sections[RECIPES]:
        check_label(str(label))
    recipes = {
        str(label): build_config(
            Recipe, _recipe(entry, sections["train"], str(label)), f"{RECIPES}.{label}"
        )
        for label, entry in sections[RECIPES].items()
    }
    for label, recipe in recipes.items():
        _check(recipe, f"{RECIPES}.{label}")
    return recipes


def parse_change(change: str, form: str) -> tuple[str, Any]:
    """Reads a change of a setting, `KEY=VALUE` with the value in YAML.

    Args:
        change: Argument of the command line.
        form: Allowed form, for the message.

    Raises:
        UserError: If it has no key or no value, or the value is not valid YAML.
    """
    key, equals, text = change.partition("=")
    if not (key.strip() and equals):
        raise _misunderstood(change, form)
    try:
        return key.strip(), load_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {change!r}: the value is not valid YAML") from error


def pipeline_arguments(preset: Preset) -> dict[str, str]:
    """The settings as a pipeline's string parameters."""
    return {f"{step}_settings": config.model_dump_json() for step, config in preset.items()}


def _check(recipe: Recipe, name: str) -> None:
    """Tries unusual parts, if the libraries for them are installed: `submit` needs none."""
    if not find_spec("segmentation_models_pytorch"):
        return
    _check_networks(recipe, name)
    if not _is_usual(recipe):
        # imports torch, which takes seconds
        from components.train.optimization.checking import check_optimization

        check_optimization(recipe, name)


def _is_usual(recipe: Recipe) -> bool:
    """True if loss, optimizer and schedule are this project's own, without options."""
    parts = (*recipe.optimizer.loss, recipe.optimizer.method, recipe.schedule.lr_schedule)
    return all(part.name in USUAL_PARTS and not part.options for part in parts)


def _check_networks(recipe: Recipe, name: str) -> None:
    unusual = {
        section: network
        for section, network in recipe.networks.items()
        if network.encoder_depth not in USUAL_DEPTHS.get(network.architecture, ())
        or network.encoder not in USUAL_ENCODERS
    }
    if not unusual:
        return
    from components.shared.model.library import check_weights
    from components.shared.model.network import (
        build_segmenter,  # imports torch, which takes seconds
    )

    for section, network in unusual.items():
        place = f"{name}.{section}"
        without_weights = network.model_copy(update={"encoder_weights": "none"})
        build_segmenter(without_weights, place, recipe.schedule.image_sizes)
        check_weights(network, place)  # after the others: nothing is downloaded here


def _read(name: str) -> dict[str, dict[str, Any]]:
    content = yaml_files.read(name, _FOLDER, "preset")
    names = [*STEPS, RECIPES]
    for key in content:
        if key not in (*names, *_SUMMARY):
            raise UserError(
                f"preset {name} must have only the sections {', '.join(names)} (and "
                f"{' and '.join(_SUMMARY)}), not {key}" + in_words(nearest(key, names))
            )
    return {step: yaml_files.section(content, step, f"preset {name}") for step in names}


def _recipe(entry: object, train: Mapping[str, Any], label: str) -> dict[str, Any]:
    if isinstance(entry, str):
        return _read(entry)["train"]
    if not isinstance(entry, Mapping | None):
        raise UserError(
            f"{RECIPES}.{label} must hold changes of `train`, or name a preset or a .yaml "
            f"file, not {entry!r}"
        )
    return yaml_files.merged(train, entry or {})


def _with_changes(
    sections: dict[str, dict[str, Any]], changes: Iterable[str], steps: Collection[str]
) -> dict[str, dict[str, Any]]:
    form = f"STEP.KEY=VALUE, e.g. train.schedule.epochs=20, with STEP one of {', '.join(steps)}"
    for change in changes:
        key, value = parse_change(change, form)
        sections = _changed(sections, _path(key, change, steps, form), value, change)
    return sections


def _path(key: str, change: str, steps: Collection[str], form: str) -> list[str]:
    path = ("split.method" if key == "split" else key).split(".")  # as in split=report2020
    if len(path) == 1 or not all(path):
        raise _misunderstood(change, form)
    if path[0] not in steps:
        raise _misunderstood(change, form, in_words(nearest(path[0], steps)))
    return path


def _misunderstood(change: str, form: str, near: str = "") -> UserError:
    return UserError(f"--set {change!r} is not understood{near}; the form is {form}")


def _changed(
    values: Mapping[str, Any], path: Sequence[str], value: object, change: str
) -> dict[str, Any]:
    """Returns a copy of the values with one more, at the end of `path`."""
    key, rest = path[0], path[1:]
    inner = values.get(key)
    if not rest:
        return {**values, key: value}
    if not isinstance(inner, Mapping | None):
        raise UserError(f"--set {change!r}: {key} is {inner!r} and holds no {rest[0]}")
    return {**values, key: _changed(inner or {}, rest, value, change)}

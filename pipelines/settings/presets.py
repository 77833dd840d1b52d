"""Presets: named settings for all steps of a run."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from components.aggregate.settings import AggregateSettings
from components.compare.settings import CompareSettings
from components.evaluate.settings import EvaluateSettings
from components.ingest.settings import IngestSettings
from components.notify.settings import NotifySettings
from components.predict.settings import PredictSettings
from components.profile.settings import ProfileSettings
from components.radiogenomics.settings import RadiogenomicsSettings
from components.register.settings import RegisterSettings
from components.shared.config import Config, build_config, in_words, load_yaml, nearest
from components.shared.errors import UserError
from components.shared.tracking.identity import check_label
from components.split.settings import FoldSettings, SplitSettings
from components.train.ensemble_settings import EnsembleSettings
from components.train.recipe import Recipe
from pipelines.settings import yaml_files

if TYPE_CHECKING:  # takes a second, and needs an extra
    from kfp.dsl.graph_component import GraphComponent

STEPS: Mapping[str, type[Config]] = {
    "ingest": IngestSettings,
    "profile": ProfileSettings,
    "split": SplitSettings,
    "fold": FoldSettings,
    "train": Recipe,
    "ensemble": EnsembleSettings,
    "compare": CompareSettings,
    "evaluate": EvaluateSettings,
    "aggregate": AggregateSettings,
    "register": RegisterSettings,
    "predict": PredictSettings,
    "radiogenomics": RadiogenomicsSettings,
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
    """Name, purpose (a noun phrase) and measured scores of a preset."""

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
    """Renders every setting of a preset, see `load_preset`, as YAML, which is a valid preset."""
    preset = load_preset(name, changes)
    settings = {step: config.model_dump(mode="json") for step, config in preset.items()}
    recipes = _read(name)[RECIPES]
    return yaml.safe_dump(settings | ({RECIPES: recipes} if recipes else {}), sort_keys=False)


def load_preset(
    name: str, changes: Iterable[str] = (), steps: Collection[str] = tuple(STEPS)
) -> Preset:
    """Reads a preset, applies changes to it and returns the validated settings of the steps.

    Args:
        name: One of `preset_names()`, or the path of a YAML file with the same sections. A preset
            may serve several pipelines: sections of other steps are checked and left out.
        changes: Texts `step.key=value` or `step.section.key=value`, with the value in YAML.
        steps: Steps of the pipeline, see `settings_of`.

    Raises:
        UserError: If there is no such preset, a setting is unknown or out of range, or a part of
            the recipe cannot be built (tried only if the libraries for it are installed).
    """
    sections = _with_changes(_read(name), changes, steps)
    # new volumes lie as those of the training data did
    sections["predict"] = {"layout": sections["ingest"].get("layout") or {}} | sections["predict"]
    preset = {step: build_config(kind, sections[step], step) for step, kind in STEPS.items()}
    if "train" in steps:
        _check(Recipe.model_validate(preset["train"]), "train")
    return {step: preset[step] for step in steps}


def load_recipes(name: str, changes: Iterable[str] = ()) -> dict[str, Recipe]:
    """Reads the recipes that a preset compares, by their labels.

    An entry of its section `recipes` holds changes of the section `train`, or names a preset (or
    file) whose section `train` is used. A preset without that section has the entries of
    `pipelines/recipes.yaml`.

    Args:
        name: Name or path, see `load_preset`.
        changes: Texts `train.key=value` for all entries of the first kind, or
            `recipes.label.key=value` for one.

    Raises:
        UserError: If an entry is not a valid recipe; the message names it.
    """
    sections = _read(name)
    sections[RECIPES] = sections[RECIPES] or load_yaml(_DEFAULT_RECIPES.read_text())
    known = list(map(str, sections[RECIPES]))
    sections = _with_changes(sections, changes, ("train", RECIPES))
    for label in sections[RECIPES]:
        if str(label) not in known:
            raise UserError(
                f"--set {RECIPES}.{label}: the preset has no such recipe"
                f"{in_words(nearest(str(label), known))}; there are {', '.join(known)}. Add one in "
                f"the section `{RECIPES}` of a preset file"
            )
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


def parse_change(change: str, form: str, option: str = "--set") -> tuple[str, Any]:
    """Reads the value of an option, `KEY=VALUE` with the value in YAML.

    Raises:
        UserError: If it has no key or no value, or the value is not valid YAML.
    """
    key, equals, text = change.partition("=")
    if not (key.strip() and equals):
        raise UserError(f"{option} {change!r} is not understood; the form is {form}")
    try:
        return key.strip(), load_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(f"{option} {change!r}: the value is not valid YAML") from error


def changed(
    values: Mapping[str, Any], path: Sequence[str], value: object, change: str
) -> dict[str, Any]:
    """Returns a copy of settings with one more.

    Args:
        values: Settings in sections.
        path: Keys that lead to it.
        value: Its value.
        change: Text of the change, for messages.

    Raises:
        UserError: If a key of the path is no section.
    """
    key, *rest = path
    if not rest:
        return {**values, key: value}
    inner = values.get(key)
    if not isinstance(inner, Mapping | None):
        raise UserError(f"--set {change!r}: {key} is {inner!r} and holds no {rest[0]}")
    return {**values, key: changed(inner or {}, rest, value, change)}


def graph_arguments(
    pipeline: "GraphComponent", preset: str, changes: Iterable[str] = (), run_name: str = ""
) -> dict[str, Any]:
    """Renders settings as a pipeline's parameters: a text for each step, and a list of recipes.

    Args:
        pipeline: Graph.
        preset: Name or path, see `load_preset`.
        changes: Changes, see `load_preset` and, for graphs that compare recipes, `load_recipes`.
        run_name: Name of the run in MLflow (default: the preset's), if the pipeline accepts one.
    """
    inputs = pipeline.component_spec.inputs or {}
    named: dict[str, Any] = {}
    if "run_name" in inputs:
        named["run_name"] = run_name or Path(preset).stem
    others = list(changes)
    if RECIPES in inputs:
        ours = [each for each in others if each.startswith(("train.", f"{RECIPES}."))]
        others = [each for each in others if each not in ours]
        recipes = load_recipes(preset, ours).items()
        named[RECIPES] = [
            {"label": label, "settings": each.model_dump_json()} for label, each in recipes
        ]
    return {**named, **pipeline_arguments(load_preset(preset, others, settings_of(pipeline)))}


def settings_of(pipeline: "GraphComponent") -> list[str]:
    """The steps with settings: the pipeline has a parameter `STEP_settings` for each."""
    names = pipeline.component_spec.inputs or {}
    return [name.removesuffix("_settings") for name in names if name.endswith("_settings")]


def pipeline_arguments(preset: Preset) -> dict[str, str]:
    """The settings as a pipeline's string parameters."""
    return {f"{step}_settings": config.model_dump_json() for step, config in preset.items()}


def _check(recipe: Recipe, name: str) -> None:
    """Tries unusual parts, if the libraries for them are installed: `submit` needs none."""
    if not find_spec("segmentation_models_pytorch"):
        return
    _check_networks(recipe, name)
    parts = (*recipe.optimizer.loss, recipe.optimizer.method, recipe.schedule.lr_schedule)
    if any(part.name not in USUAL_PARTS or part.options for part in parts):
        # imports torch, which takes seconds
        from components.train.optimization.checking import check_optimization

        check_optimization(recipe, name)


def _check_networks(recipe: Recipe, name: str) -> None:
    unusual = {
        section: network
        for section, network in recipe.networks.items()
        if network.encoder_depth not in USUAL_DEPTHS.get(network.architecture, ())
        or network.encoder not in USUAL_ENCODERS
    }
    if not unusual:
        return
    # these import torch, which takes seconds
    from components.shared.model.library import check_weights
    from components.shared.model.network import build_segmenter

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
        path = ("split.method" if key == "split" else key).split(".")  # as in split=report2020
        has_form = len(path) > 1 and all(path)
        if not has_form or path[0] not in steps:
            near = in_words(nearest(path[0], steps)) if has_form else ""
            raise UserError(f"--set {change!r} is not understood{near}; the form is {form}")
        sections = changed(sections, path, value, change)
    return sections

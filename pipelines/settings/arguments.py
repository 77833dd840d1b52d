"""Settings as parameters of a graph."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kfp.dsl.graph_component import GraphComponent

from pipelines.graph import settings_of
from pipelines.settings.presets import RECIPES, load_preset, load_recipes, pipeline_arguments


def graph_arguments(
    pipeline: GraphComponent, preset: str, changes: Iterable[str] = (), run_name: str = ""
) -> dict[str, Any]:
    """Renders settings as a pipeline's parameters: a text for each step, and a list of recipes.

    Args:
        pipeline: Graph.
        preset: Name or path, see `load_preset`.
        changes: Changes, see `load_preset` and, for graphs that compare recipes, `load_recipes`.
        run_name: Name of the run in MLflow (default: the preset's), if the pipeline accepts one.

    Raises:
        UserError: If there is no such preset, or a setting is unknown or out of range.
    """
    inputs = pipeline.component_spec.inputs or {}
    named = {"run_name": run_name or Path(preset).stem} if "run_name" in inputs else {}
    steps, all_changes = settings_of(pipeline), list(changes)
    if RECIPES not in inputs:
        return {**named, **pipeline_arguments(load_preset(preset, all_changes, steps))}
    ours = [each for each in all_changes if each.startswith(("train.", f"{RECIPES}."))]
    others = [each for each in all_changes if each not in ours]
    recipes = [
        {"label": label, "settings": recipe.model_dump_json()}
        for label, recipe in load_recipes(preset, ours).items()
    ]
    texts = pipeline_arguments(load_preset(preset, others, steps))
    return {**named, **texts, RECIPES: recipes}

"""Settings as the parameters of a graph."""

from collections.abc import Iterable
from typing import Any

from kfp.dsl.graph_component import GraphComponent

from pipelines.graph import settings_of
from pipelines.settings.presets import RECIPES, load_preset, load_recipes, pipeline_arguments


def graph_arguments(
    pipeline: GraphComponent, preset: str, changes: Iterable[str] = ()
) -> dict[str, Any]:
    """The settings as a pipeline's parameters: a text for each step, and a list of recipes.

    Args:
        pipeline: Any of the graphs.
        preset: As for `load_preset`.
        changes: As for `load_preset`; where recipes are compared, as for `load_recipes` too.

    Raises:
        UserError: If there is no such preset, or a setting is unknown or out of range.
    """
    steps, all_changes = settings_of(pipeline), list(changes)
    if RECIPES not in (pipeline.component_spec.inputs or {}):
        return dict(pipeline_arguments(load_preset(preset, all_changes, steps)))
    ours = [each for each in all_changes if each.startswith(("train.", f"{RECIPES}."))]
    others = [each for each in all_changes if each not in ours]
    recipes = [
        {"label": label, "settings": recipe.model_dump_json()}
        for label, recipe in load_recipes(preset, ours).items()
    ]
    return {**pipeline_arguments(load_preset(preset, others, steps)), RECIPES: recipes}

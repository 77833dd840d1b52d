"""The pipelines and components of the project, found by their modules."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path

from kfp.dsl.base_component import BaseComponent
from kfp.dsl.graph_component import GraphComponent

import components
from components.shared.config import in_words, nearest
from components.shared.errors import UserError
from pipelines.discovery import pipeline_summaries


def _components() -> Iterator[tuple[str, BaseComponent]]:
    for path in sorted(Path(components.__path__[0]).glob("*/component.py")):
        module = import_module(f"components.{path.parent.name}.component")
        for name, value in vars(module).items():
            if isinstance(value, BaseComponent):
                yield name, value


def _pipeline(name: str) -> GraphComponent:
    return getattr(import_module(f"pipelines.{name}"), name)


PIPELINES: Mapping[str, GraphComponent] = {
    name: _pipeline(name.replace("-", "_")) for name in pipeline_summaries()
}
COMPONENTS: Mapping[str, BaseComponent] = dict(_components())


def find_pipeline(name: str) -> GraphComponent:
    """A pipeline by its name, e.g. `cross-validation`; raises `UserError` for an unknown one."""
    if name not in PIPELINES:
        near = in_words(nearest(name, PIPELINES))
        raise UserError(f"no pipeline {name!r}{near}; there are {', '.join(PIPELINES)}")
    return PIPELINES[name]

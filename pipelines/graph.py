"""Parameters, steps and images of a compiled graph."""

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

from kfp.dsl.graph_component import GraphComponent
from kfp.pipeline_spec.pipeline_spec_pb2 import ComponentSpec, DagSpec
from pydantic import TypeAdapter, ValidationError

from components.shared.errors import UserError

_TYPES = {
    "String": str,
    "Integer": int,
    "Float": float,
    "Boolean": bool,
    "List": list,
    "Dict": dict,
}


def check_arguments(pipeline: GraphComponent, arguments: Mapping[str, Any]) -> None:
    """Raises `UserError` for an unknown argument, a missing one, or one of another type."""
    known = pipeline.component_spec.inputs or {}
    if unknown := [name for name in arguments if name not in known]:
        raise UserError(
            f"pipeline {pipeline.name} has no parameter {', '.join(unknown)}; "
            f"it has {', '.join(known) or 'none'}"
        )
    if missing := [name for name in pipeline.required_inputs if name not in arguments]:
        raise UserError(f"pipeline {pipeline.name} needs the parameter {', '.join(missing)}")
    for name, value in arguments.items():
        kind = known[name].type
        try:
            TypeAdapter(_TYPES.get(kind, object)).validate_python(value, strict=True)
        except ValidationError as error:
            raise UserError(f"parameter {name}={value!r} must be of the type {kind}") from error


def count_steps(pipeline: GraphComponent) -> int:
    """The number of steps of a run, including those in nested pipelines and loops.

    A loop over items that are known only at run time counts as one iteration.
    """
    spec = pipeline.pipeline_spec
    return _count(spec.root.dag, spec.components)


def images(pipeline: GraphComponent) -> set[str]:
    """The images of all steps."""
    executors = pipeline.pipeline_spec.deployment_spec["executors"].values()
    return {str(part["container"]["image"]) for part in executors if "container" in part}


def step_names(pipeline: GraphComponent) -> set[str]:
    """The names of all steps, including those in nested pipelines and loops."""
    parts = pipeline.pipeline_spec.components
    return {
        name
        for dag in dags(pipeline)
        for name, task in dag.tasks.items()
        if not parts[task.component_ref.name].HasField("dag")
    }


def dags(pipeline: GraphComponent) -> Iterator[DagSpec]:
    """The graph itself, then those of nested pipelines and loops."""
    spec = pipeline.pipeline_spec
    yield spec.root.dag
    yield from (part.dag for part in spec.components.values() if part.HasField("dag"))


def on_one_machine(pipeline: GraphComponent) -> GraphComponent:
    """A copy of a pipeline for one machine.

    Steps are not retried: a user error would be repeated three times. Iterations of a loop run one
    after the other, because they share the cores and the device.
    """
    copied = copy.deepcopy(pipeline)
    for dag in dags(copied):
        for task in dag.tasks.values():
            task.ClearField("retry_policy")
            if task.WhichOneof("iterator"):
                task.iterator_policy.parallelism_limit = 1
    return copied


def _count(dag: DagSpec, components: Mapping[str, ComponentSpec]) -> int:
    number = 0
    for task in dag.tasks.values():
        component, items = components[task.component_ref.name], task.parameter_iterator.items.raw
        steps = _count(component.dag, components) if component.HasField("dag") else 1
        number += steps * (len(json.loads(items)) if items else 1)
    return number

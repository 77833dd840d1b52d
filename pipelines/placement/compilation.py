"""Compilation of the pipelines and components to Kubeflow's YAML."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path

from kfp import compiler
from kfp.dsl.base_component import BaseComponent
from kfp.dsl.graph_component import GraphComponent

from components.shared.errors import UserError
from pipelines.catalogue import COMPONENTS, PIPELINES
from pipelines.placement.images import Images
from pipelines.placement.placing import placed
from pipelines.placement.profiles import PodProfile, load_profile
from pipelines.settings import defaults

NODES_OWN = Images()


def compiled(
    pipeline: GraphComponent, profile: PodProfile, images: Images = NODES_OWN
) -> GraphComponent:
    """Return a copy of a graph with its pods' settings and the full names of its images.

    Raises:
        UserError: If only some images have digests.
    """
    copied = placed(pipeline, profile)
    for executor in copied.pipeline_spec.deployment_spec["executors"].values():
        executor["container"]["image"] = images.full_name(executor["container"]["image"])
    return copied


def compile_all(
    folder: Path,
    pipelines: Mapping[str, GraphComponent] = PIPELINES,
    *,
    profile: PodProfile | None = None,
    images: Images = NODES_OWN,
) -> list[Path]:
    """Write `PIPELINE.yaml` and `components/STEP.yaml` and return the paths.

    Args:
        folder: Output folder, created if it is missing.
        pipelines: Graphs by the names of their files.
        profile: Pod settings of the pipelines; a single component has only its image.
        images: Full names of the images.

    Raises:
        UserError: If the folder cannot be written, or only some images have digests.
    """
    chosen = profile or load_profile(defaults.PROFILE)
    targets: dict[Path, BaseComponent] = {
        folder / f"{name}.yaml": compiled(graph, chosen, images)
        for name, graph in pipelines.items()
    }
    targets |= {folder / "components" / f"{name}.yaml": step for name, step in _components(images)}
    try:
        (folder / "components").mkdir(parents=True, exist_ok=True)
        for path, graph in targets.items():
            compiler.Compiler().compile(graph, str(path))
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from error
    return list(targets)


def _components(images: Images) -> Iterator[tuple[str, BaseComponent]]:
    for name, step in COMPONENTS.items():
        copied = copy.deepcopy(step)
        container = copied.component_spec.implementation.container
        container.image = images.full_name(container.image)
        yield name, copied

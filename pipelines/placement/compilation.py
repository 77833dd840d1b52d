"""Compilation of the pipelines and components to Kubeflow's YAML."""

import copy
from collections.abc import Mapping
from pathlib import Path

from kfp import compiler
from kfp.dsl.base_component import BaseComponent
from kfp.dsl.graph_component import GraphComponent

from components.shared.errors import UserError
from pipelines.catalogue import COMPONENTS, PIPELINES
from pipelines.placement.images import NODES_OWN, Images
from pipelines.placement.placing import placed
from pipelines.placement.profiles import PodProfile, load_profile
from pipelines.settings import defaults


def compile_all(
    folder: Path,
    pipelines: Mapping[str, GraphComponent] = PIPELINES,
    *,
    profile: PodProfile | None = None,
    images: Images = NODES_OWN,
) -> list[Path]:
    """Write `PIPELINE.yaml` and `components/STEP.yaml` to a folder and return the paths.

    A single component has its image, and no pod settings.

    Raises:
        UserError: If the folder cannot be written, or only some images have digests.
    """
    chosen = profile or load_profile(defaults.PROFILE)
    targets: dict[Path, BaseComponent] = {
        folder / f"{name}.yaml": placed(graph, chosen, images) for name, graph in pipelines.items()
    }
    for name, step in COMPONENTS.items():
        copied = copy.deepcopy(step)
        container = copied.component_spec.implementation.container
        container.image = images.full_name(container.image)
        targets[folder / "components" / f"{name}.yaml"] = copied
    try:
        (folder / "components").mkdir(parents=True, exist_ok=True)
        for path, graph in targets.items():
            compiler.Compiler().compile(graph, str(path))
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from error
    return list(targets)

"""Runs on a cluster, checked before anything is sent."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kfp.dsl.graph_component import GraphComponent
from pydantic import Field

from components.shared.config import Config
from components.shared.errors import UserError
from components.shared.kubernetes_names import ObjectNameOrNone
from components.shared.reading.sources.opening import require_shared_source
from components.shared.storage.s3 import parse_s3_uri
from pipelines.catalogue import find_pipeline
from pipelines.graph import check_arguments, images, step_names
from pipelines.kubeflow.upload import Package, package
from pipelines.placement.images import Images
from pipelines.placement.placing import placed
from pipelines.placement.profiles import load_profile
from pipelines.settings import defaults
from pipelines.settings.presets import graph_arguments


class Order(Config):
    """The options of a run.

    Attributes:
        source: URI of a source that pods can read.
        store: URI of the store, `s3://bucket/prefix`.
        pipeline: Name of a pipeline.
        preset: Name or file of all steps' settings.
        set: Changes of settings, `step.key=value` each.
        parameters: Values of the pipeline's other parameters.
        profile: Name or file of the pods' settings.
        service_account: Service account of the pods; empty for the installation's.
        mlflow_experiment: Experiment for KFP's MLflow plugin; empty for its own default.
        mlflow_plugin: Switch of that plugin; with another MLflow server its runs would be empty.
    """

    source: str
    store: str
    pipeline: str = "training"
    preset: str = defaults.PRESET
    set: tuple[str, ...] = ()
    parameters: dict[str, Any] = Field(default_factory=dict)
    profile: str = defaults.PROFILE
    service_account: ObjectNameOrNone = ""
    mlflow_experiment: str = "brainseg"
    mlflow_plugin: bool = True


@dataclass(frozen=True)
class Prepared:
    """A checked and compiled run."""

    order: Order
    package: Package
    arguments: Mapping[str, Any]
    steps: frozenset[str]


def prepare(order: Order, registry: Images, run_name: str = "") -> Prepared:
    """Checks the options of a run and compiles its pipeline.

    Args:
        order: Options of the run.
        registry: Registry of its images.
        run_name: Name of the run in MLflow (default: the preset's), if the pipeline accepts one.

    Raises:
        UserError: If the run would fail in its pods.
    """
    pipeline = find_pipeline(order.pipeline)
    require_shared_source(order.source)
    if not order.store.startswith("s3://"):
        raise UserError(
            f"store {order.store!r} is a local folder or not understood, but every pod needs it; "
            "give s3://bucket/prefix"
        )
    parse_s3_uri(order.store)
    arguments = _arguments(order, pipeline, run_name)
    graph = placed(pipeline, load_profile(order.profile), registry)
    _require_registry(images(graph))
    return Prepared(order, package(graph), arguments, frozenset(step_names(graph)))


def plugins_input(order: Order) -> dict[str, dict[str, str | bool]] | None:
    """The inputs of KFP's plugins, see `MLflowPluginInput` in its apiserver/plugins/mlflow."""
    if not order.mlflow_plugin:
        return {"mlflow": {"disabled": True}}
    name = order.mlflow_experiment
    return {"mlflow": {"experiment_name": name}} if name else None


def _arguments(order: Order, pipeline: GraphComponent, run_name: str) -> dict[str, Any]:
    arguments = graph_arguments(pipeline, order.preset, order.set, run_name)
    arguments |= {"source": order.source, "store": order.store, **order.parameters}
    check_arguments(pipeline, arguments)
    return arguments


def _require_registry(named: Iterable[str]) -> None:
    """Refuses images without a registry: a host with a dot or a port, or localhost."""
    for image in sorted(named):
        host = image.partition("/")[0]
        if host == image or not (re.search("[.:]", host) or host == "localhost"):
            raise UserError(
                f"image {image!r} has no registry, so no node could pull it; give --registry "
                "HOST/FOLDER, and --digests FILE for images by digest"
            )

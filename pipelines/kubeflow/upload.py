"""Pipelines and their versions in Kubeflow, uploaded if they are new."""

import hashlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import kfp_server_api
from kfp import compiler
from kfp.dsl.graph_component import GraphComponent

from pipelines.kubeflow.client import Kubeflow, KubeflowError, equals

Found = TypeVar("Found")

_TRIES, _BETWEEN_TRIES_S = 10, 0.3


@dataclass(frozen=True)
class Package:
    """A compiled pipeline."""

    name: str
    text: str

    @property
    def version(self) -> str:
        """The name of the version: equal texts have equal versions."""
        return f"{self.name}-{hashlib.sha256(self.text.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Uploaded:
    """A version of a pipeline in Kubeflow."""

    pipeline_id: str
    version_id: str
    name: str
    is_new: bool


def package(pipeline: GraphComponent) -> Package:
    """Compiles a pipeline to YAML."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        return Package(pipeline.name, path.read_text())


def find(kubeflow: Kubeflow, compiled: Package) -> Uploaded:
    """Finds the version of a package; ids that do not exist yet are empty."""
    pipeline_id = _find_pipeline(kubeflow, compiled.name) or ""
    found = _find_version(kubeflow, pipeline_id, compiled.version) if pipeline_id else None
    return found or Uploaded(pipeline_id, "", compiled.version, is_new=True)


def find_or_upload(kubeflow: Kubeflow, compiled: Package) -> Uploaded:
    """Finds the version of a package, or uploads it.

    The pipeline is found by its name, which stays when somebody renames it in the UI. If two
    processes upload the same at once, the second finds the version of the first.
    """
    name, version = compiled.name, compiled.version
    pipeline_id = _find_pipeline(kubeflow, name) or _create_pipeline(kubeflow, name)
    if found := _find_version(kubeflow, pipeline_id, version):
        return found
    service = kubeflow.api.pipeline_uploads.upload_pipeline_version
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.yaml"
        path.write_text(compiled.text)
        try:
            created = kubeflow.ask(service, str(path), name=version, pipelineid=pipeline_id)
        except KubeflowError as error:
            return _created_by_another(error, lambda: _find_version(kubeflow, pipeline_id, version))
    return Uploaded(pipeline_id, str(created.pipeline_version_id), version, is_new=True)


def _find_pipeline(kubeflow: Kubeflow, name: str) -> str | None:
    service = kubeflow.api.pipelines.pipeline_service_get_pipeline_by_name
    options = {"namespace": kubeflow.namespace} if kubeflow.namespace else {}
    try:
        return str(kubeflow.ask(service, name, **options).pipeline_id)
    except KubeflowError as error:
        if error.status != 404:
            raise
        return None


def _create_pipeline(kubeflow: Kubeflow, name: str) -> str:
    pipeline = kfp_server_api.V2beta1Pipeline(
        name=name, display_name=name, namespace=kubeflow.namespace or None
    )
    service = kubeflow.api.pipelines.pipeline_service_create_pipeline
    try:
        return str(kubeflow.ask(service, pipeline).pipeline_id)
    except KubeflowError as error:
        return _created_by_another(error, lambda: _find_pipeline(kubeflow, name))


def _created_by_another(refusal: KubeflowError, find_row: Callable[[], Found | None]) -> Found:
    """Waits for a row: KFP reserves its name a moment before (CREATING, pipeline_store.go)."""
    tries = _TRIES if refusal.status == 409 else 0
    for _ in range(tries):
        if found := find_row():
            return found
        time.sleep(_BETWEEN_TRIES_S)
    raise refusal


def _find_version(kubeflow: Kubeflow, pipeline_id: str, name: str) -> Uploaded | None:
    service = kubeflow.api.pipelines.pipeline_service_list_pipeline_versions
    rows = kubeflow.rows(service, "pipeline_versions", pipeline_id, filter=equals("name", name))
    ids = (str(row.pipeline_version_id) for row in rows if row.name == name)
    return next((Uploaded(pipeline_id, found, name, is_new=False) for found in ids), None)

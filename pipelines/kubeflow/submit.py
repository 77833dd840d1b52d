"""Starts a run in Kubeflow."""

import logging
from dataclasses import dataclass

import kfp_server_api

from components.shared.errors import UserError
from pipelines.kubeflow.client import Kubeflow, KubeflowError, equals
from pipelines.kubeflow.order import Prepared, plugins_input
from pipelines.kubeflow.upload import Uploaded, find_or_upload

DEFAULT_EXPERIMENT = "brainseg"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Submitted:
    """A run that Kubeflow has accepted."""

    run_id: str
    name: str
    link: str
    version: Uploaded


def submit(kubeflow: Kubeflow, prepared: Prepared, *, name: str, experiment: str) -> Submitted:
    """Uploads the pipeline if it has changed, and starts a run of it."""
    experiment_id = find_experiment(kubeflow, experiment) or create_experiment(kubeflow, experiment)
    version = find_or_upload(kubeflow, prepared.package)
    run = kfp_server_api.V2beta1Run(
        display_name=name,
        experiment_id=experiment_id,
        pipeline_version_reference=kfp_server_api.V2beta1PipelineVersionReference(
            pipeline_id=version.pipeline_id, pipeline_version_id=version.version_id
        ),
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=dict(prepared.arguments)),
        service_account=prepared.order.service_account or None,
        plugins_input=plugins_input(prepared.order),
    )
    created = _create(kubeflow, run)
    for plugin, output in (created.plugins_output or {}).items():
        if output.state == kfp_server_api.V2beta1PluginState.FAILED:
            _LOG.warning(
                "the run continues, but a plugin of Kubeflow has failed: %s: %s; if pods use "
                "another MLflow server, switch it off with --no-mlflow-plugin",
                plugin,
                output.state_message,
            )
    return Submitted(created.run_id, name, kubeflow.link(f"runs/details/{created.run_id}"), version)


def find_experiment(kubeflow: Kubeflow, name: str) -> str:
    """The id of an experiment; empty if the default one does not exist yet.

    Raises `UserError` if another one does not exist, or it is archived.
    """
    found = _find(kubeflow, name)
    if found is None and name == DEFAULT_EXPERIMENT:
        return ""
    if found is None:
        raise UserError(
            f"{kubeflow.named} has no experiment {name!r}: create it with `kfp experiment create "
            f"{name}` or in its pages, or omit --experiment for {DEFAULT_EXPERIMENT!r}"
        )
    if found.storage_state == "ARCHIVED":
        raise UserError(f"experiment {name!r} is archived: restore it in {kubeflow.named}")
    return str(found.experiment_id)


def create_experiment(kubeflow: Kubeflow, name: str) -> str:
    """Creates an experiment, or finds the one that another process created; returns its id."""
    experiment = kfp_server_api.V2beta1Experiment(
        display_name=name, namespace=kubeflow.namespace or None
    )
    service = kubeflow.api.experiments.experiment_service_create_experiment
    try:
        return str(kubeflow.ask(service, experiment).experiment_id)
    except KubeflowError as error:
        found = _find(kubeflow, name)  # another process was faster
        if error.status != 409 or found is None:
            raise
        return str(found.experiment_id)


def _find(kubeflow: Kubeflow, name: str) -> kfp_server_api.V2beta1Experiment | None:
    service = kubeflow.api.experiments.experiment_service_list_experiments
    filters = {"filter": equals("display_name", name), "namespace": kubeflow.namespace}
    rows = kubeflow.rows(service, "experiments", **filters)
    return next((row for row in rows if row.display_name == name), None)


def _create(kubeflow: Kubeflow, run: kfp_server_api.V2beta1Run) -> kfp_server_api.V2beta1Run:
    try:
        return kubeflow.ask(kubeflow.api.runs.run_service_create_run, run)
    except KubeflowError as error:
        if 'unknown field "plugins_input"' in str(error):
            raise UserError(
                f"{kubeflow.named} is older than 2.17 and has no MLflow plugin: give "
                "--mlflow-experiment ''"
            ) from error
        if error.status:
            raise
        link = kubeflow.link("runs")
        raise KubeflowError(
            f"the connection broke before Kubeflow answered, so the run {run.display_name!r} may "
            f"exist: look for it {f'at {link}' if link else 'in its list of runs'} before you "
            "submit again",
            status=0,
        ) from error

"""Starting a run in Kubeflow."""

import logging
from collections.abc import Sequence
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
    """A run that Kubeflow has taken.

    Attributes:
        run_id: Given by Kubeflow.
        name: What its pages call the run.
        link: Address of its page; empty if it is not known.
        version: Of the pipeline.
    """

    run_id: str
    name: str
    link: str
    version: Uploaded


def submit(kubeflow: Kubeflow, prepared: Prepared, *, name: str, experiment: str) -> Submitted:
    """Uploads the pipeline if it has changed, and starts a run of it.

    Args:
        kubeflow: Where.
        prepared: What.
        name: What the run is called.
        experiment: The group of runs that it belongs to; the default one is made if need be.

    Raises:
        KubeflowError: If Kubeflow refuses or is away.
        UserError: If there is no such experiment.
    """
    experiment_id = find_experiment(kubeflow, experiment) or make_experiment(kubeflow, experiment)
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
    made = _create(kubeflow, run)
    _tell_plugins(made)
    return Submitted(made.run_id, name, kubeflow.link(f"runs/details/{made.run_id}"), version)


def find_experiment(kubeflow: Kubeflow, name: str) -> str:
    """The id of an experiment; empty if the default one has to be made.

    Raises:
        UserError: If there is none of another name, or it is archived.
    """
    found = _find(kubeflow, name)
    if found is None and name == DEFAULT_EXPERIMENT:
        return ""
    if found is None:
        raise UserError(
            f"{kubeflow.named} has no experiment {name!r}: make it by `kfp experiment create "
            f"{name}` or in its pages, or leave --experiment out for {DEFAULT_EXPERIMENT!r}"
        )
    if found.storage_state == "ARCHIVED":
        raise UserError(f"experiment {name!r} is archived: restore it in {kubeflow.named}")
    return str(found.experiment_id)


def make_experiment(kubeflow: Kubeflow, name: str) -> str:
    """Makes an experiment, or finds the one that another process has just made; gives its id.

    Raises:
        KubeflowError: If Kubeflow refuses.
    """
    wanted = kfp_server_api.V2beta1Experiment(
        display_name=name, namespace=kubeflow.namespace or None
    )
    service = kubeflow.api.experiments.experiment_service_create_experiment
    try:
        return str(kubeflow.ask(service, wanted).experiment_id)
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
        raise KubeflowError(
            f"the connection broke before Kubeflow told whether it has made the run "
            f"{run.display_name!r}: look for it {_place(kubeflow)} before you submit again",
            status=0,
        ) from error


def _place(kubeflow: Kubeflow) -> str:
    link = kubeflow.link("runs")
    return f"at {link}" if link else "in its list of runs"


def _tell_plugins(run: kfp_server_api.V2beta1Run) -> None:
    outputs = run.plugins_output or {}
    failed: Sequence[str] = [
        f"{name}: {output.state_message}"
        for name, output in outputs.items()
        if output.state == kfp_server_api.V2beta1PluginState.FAILED
    ]
    for text in failed:
        _LOG.warning(
            "the run goes on, but a plugin of Kubeflow has failed: %s; where pods have an MLflow "
            "of their own, --no-mlflow-plugin leaves it out",
            text,
        )

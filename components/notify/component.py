"""Notify: report the end of a pipeline run to people."""

from kfp import dsl

from components.shared.step import data_step


@data_step
def notify(
    store: str,
    pipeline_run: str,
    run: str,
    settings: str,
    status: dsl.PipelineTaskFinalStatus,
) -> None:
    """Reports the end of the pipeline run in the log and to a webhook; for an exit handler.

    An unreachable webhook does not fail the step. Its address is a secret in the environment
    variable `BRAINSEG_WEBHOOK_URL`.

    Args:
        store: URI of the store with the run's outcome: `s3://bucket/prefix` or a local folder.
        pipeline_run: Id of the pipeline run (`dsl.PIPELINE_JOB_ID_PLACEHOLDER`), used if the
            environment variable `KFP_RUN_ID` is not set.
        run: Name of the pipeline run (`dsl.PIPELINE_JOB_NAME_PLACEHOLDER`). KFP leaves it empty
            in a scheduled run; the name of the workflow is used then.
        settings: YAML of `components.notify.settings.NotifySettings`.
        status: Status that KFP passes to exit handlers, with the name of the workflow.
    """
    import os

    from components.notify.notification import notify_people
    from components.shared.process import step_process

    with step_process("notify") as process:
        notify_people(
            store,
            process.pipeline_run or pipeline_run,
            settings,
            # RunDisplayName of a scheduled run (backend/src/v2/driver/resolve.go at 2.17.0)
            run=run or status.pipeline_job_resource_name or "pipeline run",
            webhook=os.environ.get("BRAINSEG_WEBHOOK_URL", ""),
            mlflow_url=os.environ.get("MLFLOW_TRACKING_URI", ""),
        )

"""Notify: tell people how the pipeline run ended."""

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
    """Tells how the pipeline run ended, in the log and to a webhook; for an exit handler.

    A webhook that is down fails nothing. Its address is a secret and comes from
    `BRAINSEG_WEBHOOK_URL`.

    Args:
        store: `s3://bucket/prefix` or a local folder, where the steps left what became of it.
        pipeline_run: Identity of the pipeline run (`dsl.PIPELINE_JOB_ID_PLACEHOLDER`);
            `KFP_RUN_ID` goes before it.
        run: What people call it (`dsl.PIPELINE_JOB_NAME_PLACEHOLDER`).
        settings: YAML of `components.notify.settings.NotifySettings`.
        status: KFP's, by which it knows an exit handler; it holds no reason, so it is not used.
    """
    import os

    from components.notify.notification import notify_people
    from components.shared.process import step_process

    with step_process("notify") as process:
        notify_people(
            store,
            process.pipeline_run or pipeline_run,
            settings,
            run=run,
            webhook=os.environ.get("BRAINSEG_WEBHOOK_URL", ""),
            mlflow_url=os.environ.get("MLFLOW_TRACKING_URI", ""),
        )

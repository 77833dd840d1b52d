"""The retraining pipeline, for a schedule: train if the source has changed, then notify."""

from kfp import dsl

from components.check_data.component import check_data
from components.ingest.component import ingest
from components.notify.component import notify
from pipelines.training import profile_and_split, train_and_register


@dsl.pipeline(name="brainseg-retraining")
def retraining(
    source: str,
    store: str,
    force: bool = False,
    ingest_settings: str = "",
    profile_settings: str = "",
    split_settings: str = "",
    train_settings: str = "",
    evaluate_settings: str = "",
    register_settings: str = "",
    notify_settings: str = "",
    run_name: str = "",
) -> None:
    """Retrains if the source has changed, and sends a report.

    The source has changed if no version of the model was trained on its present data. New
    patients are then compared with those of the champion, and known patients keep their part of
    the champion's split. KFP allows no outputs in a pipeline with an exit handler: the results are
    in the store (runs/<pipeline run>/) and in MLflow.

    Args:
        source: URI of the volumes, as for training.
        store: URI of the data set versions: s3://bucket/prefix, or a folder on one machine.
        force: Train even without new data.
        ingest_settings: YAML of the step's settings, like the six below. Empty: defaults.
        profile_settings: Limits, also of drift, that stop the run before it needs a GPU.
        split_settings: Assignment of new patients to the parts.
        train_settings: Recipe.
        evaluate_settings: Threshold and pictures.
        register_settings: Conditions for a new champion.
        notify_settings: Form and content of messages; the webhook's address is a secret.
        run_name: Name of the run in MLflow, next to data set and date.
    """
    run = {"store": store, "pipeline_run": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
    notified = notify(**run, run=dsl.PIPELINE_JOB_NAME_PLACEHOLDER, settings=notify_settings)
    with dsl.ExitHandler(notified, name="retrain"):
        ingested = ingest(source=source, store=store, settings=ingest_settings)
        checked = check_data(
            **run,
            dataset_id=ingested.outputs["Output"],
            register_settings=register_settings,
            force=force,
        )
        with dsl.If(checked.outputs["Output"] == "changed", name="new-data"):
            settings = {
                "profile": profile_settings,
                "split": split_settings,
                "train": train_settings,
                "evaluate": evaluate_settings,
                "register": register_settings,
            }
            data = profile_and_split(
                ingested,
                store=store,
                settings=settings,
                reference_id=checked.outputs["reference_id"],
                previous_split=checked.outputs["previous_split"],
            )
            train_and_register(data, settings=settings, run_name=run_name)

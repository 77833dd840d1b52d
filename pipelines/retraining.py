"""The retraining pipeline: for a schedule; trains when the source has something new, and tells."""

from kfp import dsl

from components.check_data.component import check_data
from components.ingest.component import ingest
from components.notify.component import notify
from pipelines.training import learn


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

    The source has changed if no version of the model was trained with what it holds. Then the
    new patients are compared with those that the champion knows, everyone keeps the part that
    they had in the champion's split, and the new model must keep up with the champion. KFP lets a
    graph with an exit handler return nothing: what became of the run is in the store, in
    runs/<pipeline run>/, and in MLflow.

    Args:
        source: Where the volumes come from; as for training.
        store: Where data set versions live: s3://bucket/prefix (or a folder, on one machine).
        force: Whether to train although nothing is new.
        ingest_settings: YAML of the step's settings; so are the six below. Empty: defaults.
        profile_settings: Limits that stop the run before a GPU is used, and of drift.
        split_settings: How new patients are assigned to the parts.
        train_settings: The recipe.
        evaluate_settings: Threshold and pictures.
        register_settings: What a new champion must keep up with.
        notify_settings: Who is told what; the webhook's address is a secret.
        run_name: What the run is called in MLflow, beside data set and date.
    """
    run = {"store": store, "pipeline_run": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
    told = notify(**run, run=dsl.PIPELINE_JOB_NAME_PLACEHOLDER, settings=notify_settings)
    with dsl.ExitHandler(told, name="retrain"):
        ingested = ingest(source=source, store=store, settings=ingest_settings)
        detected = check_data(
            **run,
            dataset_id=ingested.outputs["Output"],
            register_settings=register_settings,
            force=force,
        )
        with dsl.If(detected.outputs["Output"] == "changed", name="learn"):
            learn(
                ingested,
                store=store,
                settings={
                    "profile": profile_settings,
                    "split": split_settings,
                    "train": train_settings,
                    "evaluate": evaluate_settings,
                    "register": register_settings,
                },
                run_name=run_name,
                reference_id=detected.outputs["reference_id"],
                previous_split=detected.outputs["previous_split"],
            )
    for task in (detected, told):  # registry and store change under the same name
        task.set_caching_options(enable_caching=False)

"""The inference pipeline, for a schedule: predict what is new in a source, then notify."""

from kfp import dsl

from components.notify.component import notify
from components.predict.component import join_predictions, plan_predictions, predict_shard


# A pipeline of its own for the same reason as `pipelines.cross_validation.train_folds`.
@dsl.pipeline(name="brainseg-prediction-shards")
def predict_shards(
    store: str,
    predict_settings: str,
    shards: list[dict[str, int]],
    plan: dsl.Input[dsl.Dataset],
) -> None:
    """Predicts the shards of a plan, in parallel on a cluster."""
    with dsl.ParallelFor(shards, name="shard") as shard:
        predict_shard(
            store=store,
            settings=predict_settings,
            pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            plan=plan,
            index=shard.index,
            count=shard.count,
        )


@dsl.pipeline(name="brainseg-inference")
def inference(
    source: str,
    store: str,
    model: str = "champion",
    predict_settings: str = "",
    notify_settings: str = "",
) -> None:
    """Predicts what is new in a source, and sends a report.

    A volume is new if this version of the model has not predicted its present content. KFP allows
    no outputs in a pipeline with an exit handler: masks, table and page are in the store, in
    predictions/<model>/<version>/.

    Args:
        source: URI of the volumes; they need no labels.
        store: URI of the store: s3://bucket/prefix, or a folder on one machine.
        model: champion, or models:/name/version.
        predict_settings: YAML of the step's settings. Empty: defaults.
        notify_settings: Form and content of messages; the webhook's address is a secret.
    """
    run = {"store": store, "pipeline_run": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
    notified = notify(**run, run=dsl.PIPELINE_JOB_NAME_PLACEHOLDER, settings=notify_settings)
    with dsl.ExitHandler(notified, name="predict"):
        planned = plan_predictions(
            model=model, source=source, store=store, settings=predict_settings
        )
        shards = predict_shards(
            store=store,
            predict_settings=predict_settings,
            shards=planned.outputs["Output"],
            plan=planned.outputs["plan"],
        )
        join_predictions(**run, plan=planned.outputs["plan"]).after(shards)

"""The comparison pipeline: several recipes on one split, and the gate for the best of them."""

from typing import NamedTuple

from kfp import dsl

from components.compare.component import compare
from components.ingest.component import ingest
from components.profile.component import profile
from components.split.component import split
from components.train.component import train
from pipelines.training import judge


class ComparisonOutputs(NamedTuple):
    """What a run leaves behind; all but the comparison is of the chosen model."""

    dataset_id: str
    split_id: str
    mlflow_run_id: str
    model_uri: str
    model_version: str
    promoted: bool
    reason: str
    manifest: dsl.Dataset
    profile: dsl.Artifact
    profile_report: dsl.HTML
    split: dsl.Artifact
    comparison_report: dsl.HTML
    recipes: dsl.Dataset
    evaluation_report: dsl.HTML
    decision_report: dsl.HTML
    per_patient: dsl.Dataset
    metrics: dsl.Metrics


class RecipesOutputs(NamedTuple):
    """The chosen model, and why it was chosen."""

    mlflow_run_id: str
    model: dsl.Model
    history: dsl.Artifact
    report: dsl.HTML
    table: dsl.Dataset


# Of its own for the same reason as `pipelines.cross_validation.train_folds`.
@dsl.pipeline(name="brainseg-recipes")
def train_recipes(
    store: str,
    dataset_id: str,
    split_id: str,
    recipes: list[dict[str, str]],
    manifest: dsl.Input[dsl.Dataset],
    split: dsl.Input[dsl.Artifact],
    profile_report: dsl.Input[dsl.HTML],
    compare_settings: str,
    run_name: str,
) -> RecipesOutputs:
    """Trains a model a recipe, at once on a cluster, and chooses by the validation patients.

    Args:
        store: Where the data set lives.
        dataset_id: Its version.
        split_id: Version of the split.
        recipes: `label` and `settings` (YAML) of each.
        manifest: The data set's list of volumes.
        split: Which volume is in which part.
        profile_report: For the pipeline run's MLflow run.
        compare_settings: How the models are compared.
        run_name: What the run is called in MLflow.
    """
    data = {
        "store": store,
        "dataset_id": dataset_id,
        "split_id": split_id,
        "manifest": manifest,
        "split": split,
    }
    with dsl.ParallelFor(recipes, name="recipe") as one:
        trained = train(
            **data,
            profile_report=profile_report,
            pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            settings=one.settings,
            label=one.label,
            run_name=run_name,
        )
    compared = compare(
        **data,
        models=dsl.Collected(trained.outputs["model"]),
        histories=dsl.Collected(trained.outputs["history"]),
        settings=compare_settings,
    )
    for task in (trained, compared):
        task.set_caching_options(enable_caching=False)
    return RecipesOutputs(
        mlflow_run_id=compared.outputs["Output"],
        model=compared.outputs["model"],
        history=compared.outputs["history"],
        report=compared.outputs["report"],
        table=compared.outputs["table"],
    )


@dsl.pipeline(name="brainseg-comparison")
def comparison(
    source: str,
    store: str,
    recipes: list[dict[str, str]],
    ingest_settings: str = "",
    profile_settings: str = "",
    split_settings: str = "",
    compare_settings: str = "",
    evaluate_settings: str = "",
    register_settings: str = "",
    run_name: str = "",
) -> ComparisonOutputs:
    """Trains several recipes and registers the best of them.

    Which is best is said by the validation patients. Only that model meets the test patients and
    the gate.

    Args:
        source: Where the volumes come from; as for training.
        store: Where data set versions live: s3://bucket/prefix (or a folder, on one machine).
        recipes: `label` (letters, digits, `_.:-`) and `settings` (a recipe's YAML) of each;
            `brainseg run` and `submit` make it of the preset's `train` and `recipes`.
        ingest_settings: YAML of the step's settings; so are the five below. Empty: defaults.
        profile_settings: Limits that stop the run before a GPU is used.
        split_settings: How patients are assigned to the parts.
        compare_settings: How the models are compared.
        evaluate_settings: Threshold and pictures.
        register_settings: What a new champion must keep up with.
        run_name: What the run is called in MLflow, beside data set and date.

    Returns:
        Ids, decision and reports of the run.
    """
    ingested = ingest(source=source, store=store, settings=ingest_settings)
    dataset_id, manifest = ingested.outputs["Output"], ingested.outputs["manifest"]
    data = {"store": store, "dataset_id": dataset_id, "manifest": manifest}
    profiled = profile(
        **data, ingest_account=ingested.outputs["ingest_account"], settings=profile_settings
    )
    assigned = split(**data, settings=split_settings).after(profiled)
    parts = {"split_id": assigned.outputs["Output"], "split": assigned.outputs["split"]}
    chosen = train_recipes(
        **data,
        **parts,
        recipes=recipes,
        profile_report=profiled.outputs["report"],
        compare_settings=compare_settings,
        run_name=run_name,
    )
    evaluated, registered = judge(
        {**data, **parts},
        mlflow_run_id=chosen.outputs["mlflow_run_id"],
        model=chosen.outputs["model"],
        history=chosen.outputs["history"],
        evaluate_settings=evaluate_settings,
        register_settings=register_settings,
    )
    for task in (ingested, profiled, assigned, chosen, evaluated, registered):  # as in training
        task.set_caching_options(enable_caching=False)
    return ComparisonOutputs(
        dataset_id=dataset_id,
        split_id=assigned.outputs["Output"],
        mlflow_run_id=chosen.outputs["mlflow_run_id"],
        model_uri=registered.outputs["model_uri"],
        model_version=registered.outputs["model_version"],
        promoted=registered.outputs["promoted"],
        reason=registered.outputs["reason"],
        manifest=manifest,
        profile=profiled.outputs["profile"],
        profile_report=profiled.outputs["report"],
        split=assigned.outputs["split"],
        comparison_report=chosen.outputs["report"],
        recipes=chosen.outputs["table"],
        evaluation_report=evaluated.outputs["report"],
        decision_report=registered.outputs["report"],
        per_patient=evaluated.outputs["per_patient"],
        metrics=evaluated.outputs["metrics"],
    )

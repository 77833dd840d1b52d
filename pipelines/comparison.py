"""The comparison pipeline: several recipes on one split, and the gate for the best of them."""

from typing import NamedTuple

from kfp import dsl

from components.compare.component import compare
from components.ingest.component import ingest
from components.train.component import train
from pipelines.training import evaluate_and_register, profile_and_split


class ComparisonOutputs(NamedTuple):
    """Results of a run: the comparison, and all else of the chosen model."""

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
    """The chosen model and its comparison with the others."""

    mlflow_run_id: str
    model: dsl.Model
    history: dsl.Artifact
    report: dsl.HTML
    table: dsl.Dataset


# A pipeline of its own for the same reason as `pipelines.cross_validation.train_folds`.
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
    register_settings: str,
    run_name: str,
) -> RecipesOutputs:
    """Trains one model per recipe, in parallel on a cluster, and chooses by validation patients."""
    data = {
        "store": store,
        "dataset_id": dataset_id,
        "split_id": split_id,
        "manifest": manifest,
        "split": split,
    }
    with dsl.ParallelFor(recipes, name="recipe") as recipe:
        trained = train(
            **data,
            profile_report=profile_report,
            pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            settings=recipe.settings,
            label=recipe.label,
            run_name=run_name,
            register_settings=register_settings,
        )
    compared = compare(
        **data,
        models=dsl.Collected(trained.outputs["model"]),
        histories=dsl.Collected(trained.outputs["history"]),
        settings=compare_settings,
    )
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

    The validation patients decide which recipe is best. Only its model is evaluated on the test
    patients and passes through the gate.

    Args:
        source: URI of the volumes, as for training.
        store: URI of the data set versions: s3://bucket/prefix, or a folder on one machine.
        recipes: `label` (letters, digits, `_.:-`) and `settings` (a recipe's YAML) of each recipe;
            `brainseg run` and `submit` build it from `train` and `recipes` of the preset.
        ingest_settings: YAML of the step's settings, like the five below. Empty: defaults.
        profile_settings: Limits that stop the run before it needs a GPU.
        split_settings: Method and fractions of the parts.
        compare_settings: Criterion and pictures of the comparison.
        evaluate_settings: Threshold and pictures.
        register_settings: Conditions for a new champion.
        run_name: Name of the run in MLflow, next to data set and date.

    Returns:
        Ids, decision and reports of the run.
    """
    settings = {
        "profile": profile_settings,
        "split": split_settings,
        "evaluate": evaluate_settings,
        "register": register_settings,
    }
    ingested = ingest(source=source, store=store, settings=ingest_settings)
    data = profile_and_split(ingested, store=store, settings=settings)
    chosen = train_recipes(
        **data.inputs,
        recipes=recipes,
        profile_report=data.profile.outputs["report"],
        compare_settings=compare_settings,
        register_settings=register_settings,
        run_name=run_name,
    )
    outputs = evaluate_and_register(
        data,
        mlflow_run_id=chosen.outputs["mlflow_run_id"],
        model=chosen.outputs["model"],
        history=chosen.outputs["history"],
        settings=settings,
    )
    return ComparisonOutputs(
        **outputs,
        comparison_report=chosen.outputs["report"],
        recipes=chosen.outputs["table"],
    )

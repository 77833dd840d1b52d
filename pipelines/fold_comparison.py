"""The fold comparison pipeline: several recipes on every fold, over all patients, and no model."""

from typing import NamedTuple

from kfp import dsl

from components.compare.component import compare_folds
from components.ingest.component import ingest
from components.profile.component import profile
from components.split.component import fold, split
from components.train.component import train


class FoldComparisonOutputs(NamedTuple):
    """Results of a run."""

    dataset_id: str
    best_recipe: str
    manifest: dsl.Dataset
    profile: dsl.Artifact
    profile_report: dsl.HTML
    comparison_report: dsl.HTML
    recipes: dsl.Dataset


class RecipeFoldsOutputs(NamedTuple):
    """Results of all recipes and folds together."""

    best_recipe: str
    report: dsl.HTML
    table: dsl.Dataset


# A pipeline of its own for the same reason as `pipelines.cross_validation.train_folds`.
@dsl.pipeline(name="brainseg-recipe-folds")
def train_recipe_folds(
    store: str,
    dataset_id: str,
    pairs: list[dict[str, str]],
    manifest: dsl.Input[dsl.Dataset],
    profile_report: dsl.Input[dsl.HTML],
    compare_settings: str,
    run_name: str,
) -> RecipeFoldsOutputs:
    """Trains one model per recipe and fold, in parallel on a cluster, and compares the recipes."""
    data = {"store": store, "dataset_id": dataset_id, "manifest": manifest}
    with dsl.ParallelFor(pairs, name="pair") as pair:
        assigned = split(**data, settings="", previous=pair.split_id, label=pair.label)
        trained = train(
            **data,
            split_id=assigned.outputs["Output"],
            split=assigned.outputs["split"],
            profile_report=profile_report,
            pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            settings=pair.settings,
            label=pair.label,
            run_name=run_name,
        )
    compared = compare_folds(
        **data,
        models=dsl.Collected(trained.outputs["model"]),
        settings=compare_settings,
    )
    return RecipeFoldsOutputs(
        best_recipe=compared.outputs["Output"],
        report=compared.outputs["report"],
        table=compared.outputs["table"],
    )


@dsl.pipeline(name="brainseg-fold-comparison")
def fold_comparison(
    source: str,
    store: str,
    recipes: list[dict[str, str]],
    ingest_settings: str = "",
    profile_settings: str = "",
    fold_settings: str = "",
    compare_settings: str = "",
    run_name: str = "",
) -> FoldComparisonOutputs:
    """Compares recipes over all patients by cross-validation.

    Each patient is predicted by models trained on the others. Nothing is registered and the
    champion stays: the result is about the recipes.

    Args:
        source: URI of the volumes, as for training.
        store: URI of the data set versions: s3://bucket/prefix, or a folder on one machine.
        recipes: `label` and `settings` of each recipe, as for the comparison on one split.
        ingest_settings: YAML of the step's settings, like the three below. Empty: defaults.
        profile_settings: Limits that stop the run before it needs a GPU.
        fold_settings: Number of folds and seed.
        compare_settings: Criterion and pictures of the comparison.
        run_name: Name of the run in MLflow, next to data set and date.

    Returns:
        Ids, table and report of the run.
    """
    ingested = ingest(source=source, store=store, settings=ingest_settings)
    dataset_id, manifest = ingested.outputs["Output"], ingested.outputs["manifest"]
    data = {"store": store, "dataset_id": dataset_id, "manifest": manifest}
    profiled = profile(
        **data, ingest_account=ingested.outputs["ingest_account"], settings=profile_settings
    )
    folded = fold(**data, settings=fold_settings, recipes=recipes).after(profiled)
    compared = train_recipe_folds(
        **data,
        pairs=folded.outputs["Output"],
        profile_report=profiled.outputs["report"],
        compare_settings=compare_settings,
        run_name=run_name,
    )
    return FoldComparisonOutputs(
        dataset_id=dataset_id,
        best_recipe=compared.outputs["best_recipe"],
        manifest=manifest,
        profile=profiled.outputs["profile"],
        profile_report=profiled.outputs["report"],
        comparison_report=compared.outputs["report"],
        recipes=compared.outputs["table"],
    )

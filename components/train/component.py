"""Train and ensemble: fit one recipe, or average trained models; export the segmenter."""

from kfp import dsl

from components.shared.step import trainer_step


@trainer_step
def train(
    store: str,
    dataset_id: str,
    split_id: str,
    manifest: dsl.Input[dsl.Dataset],
    split: dsl.Input[dsl.Artifact],
    profile_report: dsl.Input[dsl.HTML],
    pipeline_run: str,
    settings: str,
    model: dsl.Output[dsl.Model],
    history: dsl.Output[dsl.Artifact],
    label: str = "",
    run_name: str = "",
    group: str = "",
    pod: str = "",
    register_settings: str = "",
) -> str:
    """Fits a recipe on the training part, resuming from the last checkpoint of this run.

    A pod profile with `pod_group` sets `group` and `pod`. The step then starts a group of pods that
    trains, and follows it; the pods read the data set and the split from the store.

    Args:
        store: Store with the voxels: s3://bucket/prefix or a folder.
        dataset_id: Version of the data set.
        split_id: Version of the split.
        manifest: The data set's list of volumes.
        split: Assignment of the volumes to parts.
        profile_report: Report that is logged to the pipeline run's MLflow run.
        pipeline_run: Identity of the pipeline run, equal in every retry
            (`dsl.PIPELINE_JOB_ID_PLACEHOLDER`); `KFP_RUN_ID` has precedence.
        settings: YAML of `components.train.recipe.Recipe`.
        model: MLflow model folder with the exported segmenter.
        history: JSON of the `TrainingHistory`: epochs, search for the learning rate.
        label: Name of the training run, e.g. fold-1; empty if there is only one.
        run_name: Name of the pipeline run in MLflow, e.g. the preset.
        group: YAML of `components.train.group.settings.GroupSettings`; empty to train in this pod.
        pod: JSON of the group's pods: metadata and spec.
        register_settings: YAML of register's settings, for the name of the model whose champion
            `initial_weights=champion` is.

    Returns:
        Id of the training run's MLflow run, a child of the pipeline run's.
    """
    from functools import partial
    from pathlib import Path

    from components.shared.config import parse_config
    from components.shared.dataset.parts import SplitDataset
    from components.shared.process import importing
    from components.shared.storage.outcome import running_step
    from components.shared.tracking.model_name import read_model_name
    from components.train.recipe import Recipe

    with running_step("train", store, label, pipeline_run=pipeline_run) as process:
        recipe = parse_config(Recipe, settings, "train")
        if group:  # this process needs no torch
            from components.train.group.following import train_in_group

            work = partial(train_in_group, group, pod, recipe, store, dataset_id, split_id)
        else:
            with importing():
                from components.train.training import train_model

            dataset = SplitDataset.open(
                store=store,
                cache=process.cache,
                dataset_id=dataset_id,
                split_id=split_id,
                manifest=manifest.path,
                split=split.path,
            )
            work = partial(train_model, recipe, dataset)
        run_id = work(
            pipeline_run=process.pipeline_run,
            label=label,
            run_name=run_name,
            model_name=read_model_name(register_settings),
            profile_report=Path(profile_report.path),
            model=Path(model.path),
            history=Path(history.path),
        )
    for artifact in (model, history):  # identifies it in a list of several
        artifact.metadata["mlflow_run_id"] = run_id
    return run_id


@trainer_step
def ensemble(
    store: str,
    dataset_id: str,
    split_id: str,
    models: dsl.Input[list[dsl.Model]],
    histories: dsl.Input[list[dsl.Artifact]],
    pipeline_run: str,
    settings: str,
    model: dsl.Output[dsl.Model],
    history: dsl.Output[dsl.Artifact],
) -> str:
    """Exports the average of trained models as one segmenter.

    Args:
        store: Store with the voxels: s3://bucket/prefix or a folder.
        dataset_id: Version of the data set.
        split_id: Version of the split whose test patients no member was trained on.
        models: MLflow model folders of the members; their metadata name the runs.
        histories: JSON of each member's `TrainingHistory`; their metadata name the runs.
        pipeline_run: Identity of the pipeline run, as for `train`.
        settings: YAML of `components.train.ensemble_settings.EnsembleSettings`.
        model: MLflow model folder with the exported segmenter.
        history: JSON of the `TrainingHistory`, with those of the members.

    Returns:
        Id of the ensemble's MLflow run, a child of the pipeline run's.
    """
    from pathlib import Path

    from components.shared.config import parse_config
    from components.shared.process import importing
    from components.shared.storage.outcome import running_step
    from components.train.ensemble_settings import EnsembleSettings

    with running_step("ensemble", store, pipeline_run=pipeline_run) as process:
        with importing():
            from components.train.ensemble import Member, average_models

        history_of = {each.metadata["mlflow_run_id"]: Path(each.path) for each in histories}
        run_id = average_models(
            [
                Member(run_id, folder=Path(each.path), history=history_of[run_id])
                for each in models
                for run_id in [each.metadata["mlflow_run_id"]]
            ],
            parse_config(EnsembleSettings, settings, "ensemble"),
            pipeline_run=process.pipeline_run,
            dataset_id=dataset_id,
            split_id=split_id,
            model=Path(model.path),
            history=Path(history.path),
        )
    for artifact in (model, history):
        artifact.metadata["mlflow_run_id"] = run_id
    return run_id

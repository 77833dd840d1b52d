"""Check data: find out whether a data set is new to a model."""

from kfp import dsl

from components.shared.step import trainer_step


@trainer_step
def check_data(
    store: str,
    dataset_id: str,
    pipeline_run: str,
    register_settings: str,
    force: bool,
    reference_id: dsl.OutputPath(str),  # type: ignore[valid-type] # KFP's form
    previous_split: dsl.OutputPath(str),  # type: ignore[valid-type]
) -> str:
    """Checks whether a version of the model was trained with this data set.

    Args:
        store: URI of the store: `s3://bucket/prefix` or a local folder.
        dataset_id: Id of the data set version that the source has now.
        pipeline_run: Id of the pipeline run (`dsl.PIPELINE_JOB_ID_PLACEHOLDER`), used if the
            environment variable `KFP_RUN_ID` is not set.
        register_settings: YAML of register's settings, for the name of the model.
        force: True to train on a known data set.
        reference_id: File for the id of the champion's data set; empty if the store lacks it.
        previous_split: File for the id of the champion's split; empty if the store lacks it.

    Returns:
        `changed` or `unchanged`.
    """
    from pathlib import Path

    from components.shared.storage.outcome import Outcome, leave_outcome, running_step
    from components.shared.storage.store import open_store

    with running_step("check_data", store, pipeline_run=pipeline_run) as process:
        from components.check_data.checking import check_data_set
        from components.shared.tracking.model_name import read_model_name
        from components.shared.tracking.refusals import explaining
        from components.shared.tracking.server import connect

        name = read_model_name(register_settings)
        opened = open_store(store)
        with explaining():
            found = check_data_set(connect(), dataset_id, name, opened, force=force)
        if found.change == "unchanged":
            outcome = Outcome(
                kind="unchanged", reason=found.reason, dataset_id=dataset_id, model=found.model
            )
            leave_outcome(opened, process.pipeline_run, outcome)
        Path(reference_id).write_text(found.reference_id)
        Path(previous_split).write_text(found.previous_split)
    return found.change

"""Detect: is there anything new to learn?"""

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
    """Tells whether a version of the model was trained with this data set.

    Args:
        store: `s3://bucket/prefix` or a local folder.
        dataset_id: What the source holds now.
        pipeline_run: Identity of the pipeline run (`dsl.PIPELINE_JOB_ID_PLACEHOLDER`);
            `KFP_process.pipeline_run or pipeline_run_ID` goes before it.
        register_settings: YAML of register's settings; the name of the model is read.
        force: Whether to train all the same.
        reference_id: The champion's data set, if the store has it.
        previous_split: The champion's split, if the store has it.

    Returns:
        `changed` or `unchanged`.
    """
    from pathlib import Path

    from components.check_data.settings import CheckDataSettings
    from components.shared.config import parse_config
    from components.shared.process import step_process
    from components.shared.storage.outcome import Outcome, leave_outcome, leaving_failure
    from components.shared.storage.store import open_store

    with (
        step_process("check_data") as process,
        leaving_failure(store, process.pipeline_run or pipeline_run, "check_data"),
    ):
        from components.check_data.checking import detect_change
        from components.shared.tracking.server import connect, explaining

        name = parse_config(CheckDataSettings, register_settings, "register").model_name
        opened = open_store(store)
        with explaining():
            found = detect_change(connect(), dataset_id, name, opened, force=force)
        if found.change == "unchanged":
            outcome = Outcome(
                kind="unchanged", reason=found.reason, dataset_id=dataset_id, model=found.model
            )
            leave_outcome(opened, process.pipeline_run or pipeline_run, outcome)
        Path(reference_id).write_text(found.reference_id)
        Path(previous_split).write_text(found.previous_split)
    return found.change

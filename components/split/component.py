"""Divides patients, never slices, into train, validation and test."""

from kfp import dsl

from components.shared.step import data_step


@data_step
def split(
    store: str,
    dataset_id: str,
    manifest: dsl.Input[dsl.Dataset],
    settings: str,
    split: dsl.Output[dsl.Artifact],
) -> str:
    """Divides the patients of a data set version, stratified by site and tumour volume.

    Args:
        store: `s3://bucket/prefix` or a local folder; the split is kept there too.
        dataset_id: The data set version.
        manifest: Its list of volumes.
        settings: YAML of `components.split.settings.SplitSettings`: method, seed,
            validation_fraction, test_fraction, previous.
        split: JSON, the volumes of `train`, `validation` and `test`.

    Returns:
        The split's id.
    """
    import logging
    from pathlib import Path

    from components.shared.config import parse_config
    from components.shared.manifest import read_manifest
    from components.shared.process import step_process
    from components.shared.split import fetch_split, split_key
    from components.shared.store import open_store
    from components.split.assign import assign_split, describe_split
    from components.split.settings import SplitSettings

    with step_process("split"):
        options = parse_config(SplitSettings, settings, "split")
        keeper = open_store(store)
        data = read_manifest(Path(manifest.path), dataset_id)
        previous = fetch_split(keeper, options.previous) if options.previous else None
        made = assign_split(data, options, previous)
        keeper.write(split_key(made.split_id), made.to_json())
        Path(split.path).write_bytes(made.to_json())
        split.metadata["split_id"] = made.split_id
        for line in describe_split(made, data):
            logging.info(line)
        return made.split_id

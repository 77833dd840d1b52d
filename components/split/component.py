"""Split and fold: divide patients, never slices, into parts or into folds."""

from kfp import dsl

from components.shared.step import data_step


@data_step
def split(
    store: str,
    dataset_id: str,
    manifest: dsl.Input[dsl.Dataset],
    settings: str,
    split: dsl.Output[dsl.Artifact],
    previous: str = "",
    label: str = "",
) -> str:
    """Divides the patients of a data set version, stratified by site and tumour volume.

    Args:
        store: URI of the store, which also receives the split: `s3://bucket/prefix` or a folder.
        dataset_id: Id of the data set version.
        manifest: List of volumes of the data set version.
        settings: YAML of `components.split.settings.SplitSettings`.
        split: JSON with the patients of `train`, `validation` and `test` and their volumes.
        previous: Id of the split to follow if the settings name none, in retraining the
            champion's.
        label: Name of the split in the pipeline run, e.g. `fold-1`; empty for a single split.

    Returns:
        Id of the split.
    """
    from pathlib import Path

    from components.shared.config import parse_config
    from components.shared.dataset.manifest import read_manifest
    from components.shared.storage.outcome import running_step
    from components.shared.storage.store import open_store
    from components.split.settings import SplitSettings
    from components.split.splitting import split_dataset

    with running_step("split", store, label):
        made = split_dataset(
            read_manifest(Path(manifest.path), dataset_id),
            parse_config(SplitSettings, settings, "split").following(previous),
            open_store(store),
        )
        Path(split.path).write_bytes(made.to_json())
        split.metadata["split_id"] = made.split_id
        return made.split_id


@data_step
def fold(
    store: str,
    dataset_id: str,
    manifest: dsl.Input[dsl.Dataset],
    settings: str,
    recipes: list[dict[str, str]] = [],  # noqa: B006  # KFP's form of a default
    split_id: str = "",
) -> list[dict[str, str]]:
    """Assigns the patients of a data set version to folds, stratified by site and tumour volume.

    Each fold is a split in the store: the fold is the test part, the other folds are training
    and validation. The step `split` with this id as `previous` outputs the split as a file.

    Args:
        store: URI of the store, which receives the splits: `s3://bucket/prefix` or a folder.
        dataset_id: Id of the data set version.
        manifest: List of volumes of the data set version.
        settings: YAML of `components.split.settings.FoldSettings`.
        recipes: `label` and `settings` of the recipes that are trained on every fold.
        split_id: Id of a split, for an ensemble. Its test part is that of every fold, and the fold
            itself is a validation part.

    Returns:
        `label` (`fold-1`, ...) and `split_id` of each fold; with recipes, for each of them, where
        the label begins with that of the recipe.
    """
    from pathlib import Path

    from components.shared.config import parse_config
    from components.shared.dataset.manifest import read_manifest
    from components.shared.storage.outcome import running_step
    from components.shared.storage.store import open_store
    from components.split.settings import FoldSettings
    from components.split.splitting import fold_dataset

    with running_step("fold", store):
        made = fold_dataset(
            read_manifest(Path(manifest.path), dataset_id),
            parse_config(FoldSettings, settings, "fold"),
            open_store(store),
            split_id,
        )
        return [
            {**one, "label": f"{one['label']} {label}".strip(), "split_id": split_id}
            for one in recipes or [{"label": ""}]
            for label, split_id in made.items()
        ]

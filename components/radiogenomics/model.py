"""The registered model of an analysis, and the patients that it was not trained on."""

from dataclasses import dataclass

from components.radiogenomics.settings import RadiogenomicsSettings
from components.shared.dataset.manifest import Manifest, fetch_manifest
from components.shared.dataset.split import fetch_split, new_to
from components.shared.errors import UserError
from components.shared.model.segmenter import StoredSegmenter, load_segmenter
from components.shared.storage.store import Store
from components.shared.tracking.champion import (
    is_origin_known,
    resolve_model,
    version_of,
    version_threshold,
)
from components.shared.tracking.refusals import explaining, explaining_files


@dataclass(frozen=True)
class AnalyzedModel:
    """A registered version.

    Attributes:
        uri: `models:/NAME/VERSION`.
        split_id: Split of its training.
        segmenter: Its network, loaded.
        threshold: Threshold of its evaluation.
        unseen: Volumes of the data set whose patient and image it was neither trained nor
            selected on.
    """

    uri: str
    split_id: str
    segmenter: StoredSegmenter
    threshold: float
    unseen: frozenset[str]


@explaining()
def open_model(settings: RadiogenomicsSettings, manifest: Manifest, store: Store) -> AnalyzedModel:
    """Loads the model of the settings.

    Args:
        settings: Settings of the step.
        manifest: Data set to analyze.
        store: Store that must have the data set and split of the model's training.

    Raises:
        UserError: If there is no such version, its patients are unknown, or it finds another
            target or takes other channels than the data set has.
    """
    uri = resolve_model(settings.model, settings.model_name)
    version = version_of(uri)
    if version is None:
        raise UserError(
            f"radiogenomics.model={settings.model!r} is no registered version; use `champion`, "
            "models:/NAME/VERSION or models:/NAME@ALIAS, or `none` for the expert masks only"
        )
    if not is_origin_known(version, store):
        raise UserError(
            f"store {store.uri} lacks the data set or split of {uri}, so the patients that it was "
            "trained on are unknown; use the store of its training, or radiogenomics.model=none "
            "for the expert masks only"
        )
    theirs = fetch_manifest(store, version.tags["dataset_id"])
    split = fetch_split(store, version.tags["split_id"])
    known = [*split.entries("train", theirs), *split.entries("validation", theirs)]
    with explaining_files():
        segmenter = load_segmenter(uri, settings.device)
    _require_fit(uri, segmenter, manifest)
    return AnalyzedModel(
        uri=uri,
        split_id=split.split_id,
        segmenter=segmenter,
        threshold=version_threshold(version),
        unseen=frozenset(entry.volume for entry in new_to(known, manifest.volumes)),
    )


def _require_fit(uri: str, segmenter: StoredSegmenter, manifest: Manifest) -> None:
    forms = (
        [segmenter.targets[0].name, *segmenter.channels.names],
        [manifest.targets[0].name, *manifest.channels.names],
    )
    if forms[0] != forms[1]:
        theirs, ours = (f"{target} in {', '.join(names)}" for target, *names in forms)
        raise UserError(
            f"{uri} finds {theirs}, and the data set has {ours}; use a model that was trained on "
            "such volumes"
        )

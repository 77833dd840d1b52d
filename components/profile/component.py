"""Profile: describe a data set version, and stop the run if it is not fit for training."""

from kfp import dsl

from components.shared.step import data_step


@data_step
def profile(
    store: str,
    dataset_id: str,
    manifest: dsl.Input[dsl.Dataset],
    ingest_account: dsl.Input[dsl.Artifact],
    settings: str,
    profile: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    reference_id: str = "",
) -> None:
    """Describes a data set version and checks it against limits.

    All numbers come from the manifest; only the few volumes with pictures are read.

    Args:
        store: URI of the store: `s3://bucket/prefix` or a local folder.
        dataset_id: Id of the data set version.
        manifest: List of volumes of the data set version.
        ingest_account: JSON with the files that ingest accepted, quarantined and ignored.
        settings: YAML of `components.profile.settings.ProfileSettings`.
        profile: JSON with the description.
        report: Self-contained HTML page with the description.
        reference_id: Data set version to compare new patients with, in retraining the
            champion's; empty for no comparison.
    """
    from pathlib import Path

    from components.profile.profiling import profile_dataset
    from components.profile.settings import ProfileSettings
    from components.shared.config import parse_config
    from components.shared.dataset.ingest_account import IngestAccount
    from components.shared.dataset.manifest import fetch_manifest, read_manifest
    from components.shared.storage.outcome import running_step
    from components.shared.storage.store import open_store

    with running_step("profile", store) as process:
        opened = open_store(store)
        profile_dataset(
            read_manifest(Path(manifest.path), dataset_id),
            IngestAccount.model_validate_json(Path(ingest_account.path).read_bytes()),
            parse_config(ProfileSettings, settings, "profile"),
            opened,
            cache=process.cache,
            profile=Path(profile.path),
            report=Path(report.path),
            reference=fetch_manifest(opened, reference_id) if reference_id else None,
        )

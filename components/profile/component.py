"""Describes a data set version and stops the run if it is not fit for training."""

from kfp import dsl

from components.shared.step import data_step


@data_step
def profile(
    store: str,
    dataset_id: str,
    manifest: dsl.Input[dsl.Dataset],
    ingest_report: dsl.Input[dsl.Artifact],
    settings: str,
    profile: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
) -> None:
    """Describes a data set version for people and checks it against limits.

    Only a few volumes are read, for the pictures; all numbers come from the manifest.

    Args:
        store: `s3://bucket/prefix` or a local folder.
        dataset_id: The data set version.
        manifest: Its list of volumes.
        ingest_report: What ingest accepted, quarantined and ignored (JSON).
        settings: YAML of `components.profile.settings.ProfileSettings`: the limits.
        profile: The description for machines (JSON).
        report: The description for people, one self-contained page.
    """
    from pathlib import Path

    from components.profile.checks import require_passed
    from components.profile.describe import describe
    from components.profile.montage import choose_volumes, make_cards
    from components.profile.page import render_profile
    from components.profile.settings import ProfileSettings
    from components.shared.config import parse_config
    from components.shared.ingest_report import IngestReport
    from components.shared.manifest import read_manifest
    from components.shared.process import step_process
    from components.shared.store import open_store

    with step_process("profile") as process:
        options = parse_config(ProfileSettings, settings, "profile")
        data = read_manifest(Path(manifest.path), dataset_id)
        account = IngestReport.model_validate_json(Path(ingest_report.path).read_bytes())
        described, measures = describe(data, dataset_id, account, options)
        Path(profile.path).write_text(described.model_dump_json(indent=2))
        chosen = choose_volumes(measures, described.outliers, options.montage_volumes)
        cards = make_cards(data, chosen, open_store(store), process.cache)
        Path(report.path).write_text(render_profile(described, data, measures, cards))
        require_passed(described.checks, report.path)

"""Ingest: validates patients and publishes a data set version."""

from kfp import dsl

from components.shared.step import data_step


@data_step
def ingest(
    source: str,
    store: str,
    settings: str,
    manifest: dsl.Output[dsl.Dataset],
    ingest_account: dsl.Output[dsl.Artifact],
) -> str:
    """Validates patients and publishes them as an immutable data set version.

    Args:
        source: URI of the volumes; `brainseg ingest --help` lists the forms.
        store: `s3://bucket/prefix` or a folder in which the version is published.
        settings: YAML of `IngestSettings`: strict, max_file_mib, max_archive_gib.
        manifest: Volumes of the version (JSON).
        ingest_account: Accepted, quarantined and ignored files (JSON).

    Returns:
        The data set's id.
    """
    from pathlib import Path

    from components.ingest.ingestion import ingest_source
    from components.ingest.settings import IngestSettings
    from components.shared.config import parse_config
    from components.shared.storage.outcome import running_step
    from components.shared.storage.store import open_store

    with running_step("ingest", store):
        options = parse_config(IngestSettings, settings, "ingest")
        result = ingest_source(source, open_store(store), options)
        Path(manifest.path).write_bytes(result.manifest.to_json())
        Path(ingest_account.path).write_text(result.account.model_dump_json(indent=2))
        manifest.metadata["dataset_id"] = result.account.dataset_id
    return result.account.dataset_id

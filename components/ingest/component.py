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

    As the first step of all graphs with a training run, it tries MLflow before any work, unless
    the environment names no server or `BRAINSEG_SKIP_PROBE` is set.

    Args:
        source: URI of the volumes; `brainseg ingest --help` lists the forms.
        store: `s3://bucket/prefix` or a folder in which the version is published.
        settings: YAML of `IngestSettings`: limits, strictness and layout.
        manifest: Volumes of the version (JSON).
        ingest_account: Accepted, quarantined and ignored files (JSON).

    Returns:
        The data set's id.
    """
    import os
    from pathlib import Path

    from components.ingest.ingestion import ingest_source
    from components.ingest.settings import IngestSettings
    from components.shared.config import parse_config
    from components.shared.storage.outcome import running_step
    from components.shared.storage.store import open_store

    with running_step("ingest", store):
        is_server = os.environ.get("MLFLOW_TRACKING_URI", "").startswith("http")
        if is_server and not os.environ.get("BRAINSEG_SKIP_PROBE"):
            from components.shared.tracking.probe import probe

            probe()
        options = parse_config(IngestSettings, settings, "ingest")
        result = ingest_source(source, open_store(store), options)
        Path(manifest.path).write_bytes(result.manifest.to_json())
        Path(ingest_account.path).write_text(result.account.model_dump_json(indent=2))
        manifest.metadata["dataset_id"] = result.account.dataset_id
    return result.account.dataset_id


@data_step
def plan_shards(source: str, store: str, settings: str) -> list[dict[str, int]]:
    """Divides the volumes of a source among pods.

    Args:
        source: URI of the volumes.
        store: `s3://bucket/prefix` or a folder, for messages of the step.
        settings: YAML of `IngestSettings`; `shard_volumes` decides the number of shards.

    Returns:
        `index` and `count` of each shard.
    """
    from components.ingest.settings import IngestSettings
    from components.ingest.sharding import plan_shards
    from components.shared.config import parse_config
    from components.shared.storage.outcome import running_step

    with running_step("plan-shards", store):
        return plan_shards(source, parse_config(IngestSettings, settings, "ingest"))


@data_step
def ingest_shard(
    source: str,
    store: str,
    settings: str,
    index: int,
    count: int,
    part: dsl.Output[dsl.Dataset],
) -> None:
    """Validates and stores every `count`-th volume of a source.

    Args:
        source: URI of the volumes.
        store: `s3://bucket/prefix` or a folder that receives the volumes.
        settings: YAML of `IngestSettings`.
        index: Number of the first volume.
        count: Number of shards.
        part: Entry or reason of each volume (JSON).
    """
    from pathlib import Path

    from components.ingest.settings import IngestSettings
    from components.ingest.sharding import ingest_shard
    from components.shared.config import parse_config
    from components.shared.storage.outcome import running_step
    from components.shared.storage.store import open_store

    with running_step("ingest-shard", store):
        options, path = parse_config(IngestSettings, settings, "ingest"), Path(part.path)
        ingest_shard(source, open_store(store), options, index=index, count=count, part=path)


@data_step
def merge_shards(
    source: str,
    store: str,
    settings: str,
    parts: dsl.Input[list[dsl.Dataset]],
    manifest: dsl.Output[dsl.Dataset],
    ingest_account: dsl.Output[dsl.Artifact],
) -> str:
    """Publishes the volumes of all shards as one immutable data set version.

    Args:
        source: URI of the volumes.
        store: `s3://bucket/prefix` or a folder in which the version is published.
        settings: YAML of `IngestSettings`.
        parts: Results of all shards.
        manifest: Volumes of the version (JSON).
        ingest_account: Accepted, quarantined and ignored files (JSON).

    Returns:
        The data set's id, equal to that of one ingest of the source.
    """
    from pathlib import Path

    from components.ingest.settings import IngestSettings
    from components.ingest.sharding import merge_shards
    from components.shared.config import parse_config
    from components.shared.storage.outcome import running_step
    from components.shared.storage.store import open_store

    with running_step("merge-shards", store):
        options = parse_config(IngestSettings, settings, "ingest")
        read = [Path(part.path) for part in parts]
        result = merge_shards(source, open_store(store), options, read)
        Path(manifest.path).write_bytes(result.manifest.to_json())
        Path(ingest_account.path).write_text(result.account.model_dump_json(indent=2))
        manifest.metadata["dataset_id"] = result.account.dataset_id
    return result.account.dataset_id

"""The ingestion pipeline: a large source, read by several pods, as a data set version."""

from typing import NamedTuple

from kfp import dsl

from components.ingest.component import ingest_shard, merge_shards, plan_shards
from components.profile.component import profile


class IngestionOutputs(NamedTuple):
    """Results of a run."""

    dataset_id: str
    manifest: dsl.Dataset
    profile: dsl.Artifact
    profile_report: dsl.HTML


class ShardsOutputs(NamedTuple):
    """Results of all shards together."""

    dataset_id: str
    manifest: dsl.Dataset
    ingest_account: dsl.Artifact


# A pipeline of its own for the same reason as `pipelines.cross_validation.train_folds`.
@dsl.pipeline(name="brainseg-shards")
def read_shards(
    source: str, store: str, ingest_settings: str, shards: list[dict[str, int]]
) -> ShardsOutputs:
    """Reads the shards, in parallel on a cluster, and publishes them together."""
    given = {"source": source, "store": store, "settings": ingest_settings}
    with dsl.ParallelFor(shards, name="shard") as shard:
        read = ingest_shard(**given, index=shard.index, count=shard.count)
    merged = merge_shards(**given, parts=dsl.Collected(read.outputs["part"]))
    return ShardsOutputs(
        dataset_id=merged.outputs["Output"],
        manifest=merged.outputs["manifest"],
        ingest_account=merged.outputs["ingest_account"],
    )


@dsl.pipeline(name="brainseg-ingestion")
def ingestion(
    source: str, store: str, ingest_settings: str = "", profile_settings: str = ""
) -> IngestionOutputs:
    """Ingests a large source by several pods, and profiles it.

    The data set version is the same as that of any other pipeline with this source. Other
    pipelines start from it with the source `dataset:ID`.

    Args:
        source: URI of the volumes; `brainseg ingest --help` lists the forms.
        store: URI of the data set versions: s3://bucket/prefix, or a folder on one machine.
        ingest_settings: YAML of the step's settings. Empty: defaults.
        profile_settings: Limits that stop the run.

    Returns:
        Id and reports of the version.
    """
    given = {"source": source, "store": store}
    planned = plan_shards(**given, settings=ingest_settings)
    read = read_shards(**given, ingest_settings=ingest_settings, shards=planned.output)
    profiled = profile(
        store=store,
        dataset_id=read.outputs["dataset_id"],
        manifest=read.outputs["manifest"],
        ingest_account=read.outputs["ingest_account"],
        settings=profile_settings,
    )
    return IngestionOutputs(
        dataset_id=read.outputs["dataset_id"],
        manifest=read.outputs["manifest"],
        profile=profiled.outputs["profile"],
        profile_report=profiled.outputs["report"],
    )

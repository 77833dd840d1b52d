"""The radiogenomics pipeline: tumour shapes of a source, and their association with genomics."""

from typing import NamedTuple

from kfp import dsl

from components.ingest.component import ingest
from components.radiogenomics.component import radiogenomics as analyze


class RadiogenomicsOutputs(NamedTuple):
    """Results of a run."""

    dataset_id: str
    mlflow_run_id: str
    manifest: dsl.Dataset
    radiogenomics_report: dsl.HTML
    features: dsl.Dataset


@dsl.pipeline(name="brainseg-radiogenomics")
def radiogenomics(
    source: str, store: str, ingest_settings: str = "", radiogenomics_settings: str = ""
) -> RadiogenomicsOutputs:
    """Tests tumour shapes against genomic clusters.

    Args:
        source: URI of the volumes with masks and patient table, as for training.
        store: URI of the store of the model's training: s3://bucket/prefix, or a folder.
        ingest_settings: YAML of the step's settings. Empty: defaults.
        radiogenomics_settings: Model and columns of the patient table.

    Returns:
        Id and reports of the analysis.
    """
    ingested = ingest(source=source, store=store, settings=ingest_settings)
    analyzed = analyze(
        store=store,
        dataset_id=ingested.outputs["Output"],
        manifest=ingested.outputs["manifest"],
        pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        settings=radiogenomics_settings,
    )
    return RadiogenomicsOutputs(
        dataset_id=ingested.outputs["Output"],
        mlflow_run_id=analyzed.outputs["Output"],
        manifest=ingested.outputs["manifest"],
        radiogenomics_report=analyzed.outputs["report"],
        features=analyzed.outputs["features"],
    )

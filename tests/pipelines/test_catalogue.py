import tomllib
from pathlib import Path

import pytest
from kfp.dsl.graph_component import GraphComponent

from components.shared.errors import UserError
from components.shared.step import DATA_IMAGE
from pipelines import discovery
from pipelines.catalogue import COMPONENTS, PIPELINES, find_pipeline
from pipelines.discovery import pipeline_summaries


def test_pipelines_are_found_by_their_modules():
    assert list(PIPELINES) == [
        *("comparison", "cross-validation", "ensemble", "fold-comparison"),
        *("inference", "ingestion", "radiogenomics", "retraining", "training"),
    ]
    assert all(isinstance(graph, GraphComponent) for graph in PIPELINES.values())


def test_a_new_module_is_found_and_its_inner_pipelines_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(discovery, "_FOLDER", tmp_path)
    module = "from kfp import dsl\n\n\n{}def {}():\n    '''First line.\n\n    More.\n    '''\n"
    pipeline = module.format("@dsl.pipeline(name='x')\n", "inner")
    pipeline += module.format("@dsl.pipeline(name='x')\n", "two_words")
    (tmp_path / "two_words.py").write_text(pipeline)
    (tmp_path / "tool.py").write_text(module.format("", "tool"))
    assert pipeline_summaries() == {"two-words": "First line."}


def test_every_step_is_found():
    assert {"ingest", "fold", "split", "train", "predict"} <= set(COMPONENTS)


def test_the_import_rules_name_every_step_of_the_data_image():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    contracts = {each["name"]: each for each in project["tool"]["importlinter"]["contracts"]}
    listed = contracts["steps of the data image do without torch and mlflow"]["source_modules"]
    assert {f"{name}.component" for name in listed} == {
        step.python_func.__module__
        for step in COMPONENTS.values()
        if step.component_spec.implementation.container.image == DATA_IMAGE
    }


def test_an_unknown_pipeline_is_refused_with_the_nearest_name():
    assert find_pipeline("training") is PIPELINES["training"]
    with pytest.raises(UserError, match=r"'trainin' \(nearest: training\); there are comparison"):
        find_pipeline("trainin")

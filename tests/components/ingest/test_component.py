import json
import logging

import pytest
from kfp import dsl

from components.ingest.component import ingest
from components.shared.dataset.manifest import read_manifest


@pytest.fixture
def artifacts(tmp_path, monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])  # a step sets up its process's log
    return {
        "manifest": dsl.Dataset(uri=str(tmp_path / "manifest.json")),
        "ingest_account": dsl.Artifact(uri=str(tmp_path / "report.json")),
    }


def test_writes_its_artifacts(synthetic_folder, tmp_path, artifacts):
    dataset_id = ingest.python_func(
        source=str(synthetic_folder), store=str(tmp_path / "store"), settings="", **artifacts
    )
    manifest = read_manifest(tmp_path / "manifest.json", dataset_id)
    assert len(manifest.volumes) == 6
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["dataset_id"] == dataset_id
    assert report["volumes"] == 6


def test_users_mistake_is_one_line(tmp_path, artifacts, capsys):
    with pytest.raises(SystemExit):
        ingest.python_func(source="/nowhere", store=str(tmp_path), settings="", **artifacts)
    assert "source /nowhere does not exist; give a folder" in capsys.readouterr().err


def test_unknown_setting_is_refused(tmp_path, artifacts, capsys):
    with pytest.raises(SystemExit):
        ingest.python_func(source=".", store=str(tmp_path), settings="strickt: true", **artifacts)
    assert "ingest.strickt is not a setting" in capsys.readouterr().err


def test_an_mlflow_that_cannot_be_used_is_reported_before_the_source_is_read(
    tmp_path, artifacts, capsys, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    arguments = {"source": "/nowhere", "store": str(tmp_path), "settings": "", **artifacts}
    with pytest.raises(SystemExit):
        ingest.python_func(**arguments)
    assert "MLflow at http://127.0.0.1:9 cannot be used: connection" in capsys.readouterr().err
    monkeypatch.setenv("BRAINSEG_SKIP_PROBE", "1")
    with pytest.raises(SystemExit):
        ingest.python_func(**arguments)
    assert "source /nowhere does not exist" in capsys.readouterr().err

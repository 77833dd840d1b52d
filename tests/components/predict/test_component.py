import pytest
from kfp import dsl

from components.predict.component import predict


def test_leaves_a_folder_and_a_page(tmp_path, threshold_model):
    (tmp_path / "report").mkdir()
    count = predict.python_func(
        model=str(threshold_model(150)),
        source="synthetic:1",
        settings="{device: cpu}",
        predictions=dsl.Dataset(uri=str(tmp_path / "predictions")),
        report=dsl.HTML(uri=str(tmp_path / "report" / "page")),
    )
    assert count == 1
    assert (tmp_path / "predictions" / "predictions.csv").exists()
    assert "<title>Predictions</title>" in (tmp_path / "report" / "page").read_text()


def test_a_users_mistake_is_one_line(tmp_path, capfd):
    artifact = dsl.Artifact(uri=str(tmp_path / "artifact"))
    with pytest.raises(SystemExit):
        predict.python_func("champion", "synthetic:0", "", artifact, artifact)
    assert "brainseg error: source 'synthetic:0' is not understood" in capfd.readouterr().err

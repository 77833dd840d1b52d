import pytest
from kfp import dsl

from components.radiogenomics.component import radiogenomics


@pytest.fixture
def arguments(world, tmp_path):
    (tmp_path / "manifest").write_bytes(world.manifest.to_json())
    return {
        "store": world.store.uri,
        "dataset_id": world.manifest.dataset_id,
        "manifest": dsl.Dataset(uri=str(tmp_path / "manifest")),
        "pipeline_run": "radiogenomics-test",
        "settings": "{model: none, device: cpu}",
        "report": dsl.HTML(uri=str(tmp_path / "report")),
        "features": dsl.Dataset(uri=str(tmp_path / "features")),
    }


def test_the_step_writes_page_and_table(arguments, tmp_path):
    assert radiogenomics.python_func(**arguments)
    assert "Tumour shape and genomic clusters" in (tmp_path / "report").read_text()
    assert len((tmp_path / "features").read_text().splitlines()) == 13


def test_columns_that_the_data_set_lacks_are_one_line(arguments, capsys):
    settings = "{model: none, subtypes: [IDH]}"
    with pytest.raises(SystemExit):
        radiogenomics.python_func(**{**arguments, "settings": settings})
    assert "brainseg error: data set" in (error := capsys.readouterr().err)
    assert "has no value in IDH; set radiogenomics.subtypes to columns" in error

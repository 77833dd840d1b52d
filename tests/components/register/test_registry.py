import shutil
import uuid

import pytest

from components.register.registry import add_version, folder_digest
from components.shared.errors import UserError
from components.shared.tracking.server import Client, connect
from tests.components.conftest import new_run


@pytest.fixture
def name():
    return uuid.uuid4().hex


def add(name, folder, run_id=None, **tags):
    return add_version(connect(), name, run_id or new_run(), folder, tags, [])


def test_a_folder_is_registered_once_for_a_run(local_mlflow, name, threshold_model):
    run_id = new_run()
    first = add(name, threshold_model(140), run_id, dataset_id="x")
    assert add(name, threshold_model(140), run_id).version == first.version
    assert add(name, threshold_model(150), run_id).version != first.version
    assert add(name, threshold_model(140)).version != first.version


def test_bytes_that_change_on_the_way_are_refused(
    local_mlflow, name, threshold_model, monkeypatch, tmp_path
):
    short = shutil.copytree(threshold_model(140), tmp_path / "short")
    (short / "segmenter" / "model.safetensors").write_bytes(b"")
    upload = Client.log_model_artifacts
    monkeypatch.setattr(
        Client, "log_model_artifacts", lambda self, to, _: upload(self, to, str(short))
    )
    with pytest.raises(UserError, match="MLflow has different bytes"):
        add(name, threshold_model(140))


def test_the_digest_is_of_names_and_bytes(tmp_path):
    for folder, file, text in (("a", "x", "1"), ("b", "x", "1"), ("c", "y", "1"), ("d", "x", "2")):
        (tmp_path / folder / "data").mkdir(parents=True)
        (tmp_path / folder / "data" / file).write_text(text)
    (tmp_path / "b" / "registered_model_meta").write_text("MLflow writes this when it loads")
    a, b, c, d = (folder_digest(tmp_path / folder) for folder in "abcd")
    assert a == b
    assert len({a, c, d}) == 3

import asyncio

import pytest

from components.shared.errors import UserError
from pipelines.serving import loaded
from pipelines.serving.loaded import ServedModel
from pipelines.serving.settings import ServeSettings
from tests.components.threshold_model import write_threshold_model


@pytest.fixture
def alias(folder, tmp_path, monkeypatch):
    """An alias that tests move, on model folders in place of registered versions."""
    write_threshold_model(tmp_path / "second", 100)
    state = {"folder": str(folder)}
    monkeypatch.setattr(loaded, "resolve_model", lambda *_: state["folder"])
    state["second"] = str(tmp_path / "second")
    return state


def test_a_moved_alias_is_followed(alias, connect, image, zipped):
    served = ServedModel("champion", ServeSettings(device="cpu"))
    client = connect(served, poll_s=0.05)
    before = client.post("/predict", content=zipped).content
    first, alias["folder"] = served.current, alias["second"]
    for _ in range(200):
        assert client.get("/v2/health/ready").status_code == 200
        if served.current is not first:
            break
        client.portal.call(asyncio.sleep, 0.02)
    assert served.current.uri == alias["second"]
    assert served.swaps == 1
    assert client.post("/predict", content=zipped).status_code == 200
    assert before
    assert first.segmenter(image).shape == (1, *image.shape[:3])  # still usable


def test_a_version_that_cannot_be_loaded_is_left_out(alias, tmp_path, caplog):
    served = ServedModel("champion", ServeSettings(device="cpu"))
    first, alias["folder"] = served.current, str(tmp_path)
    served.refresh()
    assert served.current is first
    assert "still serving" in caplog.text


def test_a_missing_model(tmp_path):
    with pytest.raises(UserError, match="cannot be loaded"):
        ServedModel(str(tmp_path), ServeSettings(device="cpu"))

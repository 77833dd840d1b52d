import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from kfp import dsl

from components.profile.component import profile
from components.shared.dataset.manifest import make_manifest
from components.shared.dataset.volumes import Volume, encode_volume, volume_key
from components.shared.storage.store import FolderStore


@pytest.fixture
def run(tmp_path, make_entry, make_account, monkeypatch):
    """Runs the step's body as its process would, on stored volumes."""
    monkeypatch.setenv("BRAINSEG_CACHE", str(tmp_path / "cache"))
    store = FolderStore(tmp_path / "store")

    def run(patients, settings, stored=True):
        data = make_manifest(entry(store, make_entry, number) for number in range(patients))
        if not stored:
            shutil.rmtree(tmp_path / "store")
        (tmp_path / "manifest").write_bytes(data.to_json())
        (tmp_path / "account").write_text(make_account().model_dump_json())
        return profile.python_func(
            store.uri,
            data.dataset_id,
            dsl.Dataset(uri=str(tmp_path / "manifest")),
            dsl.Artifact(uri=str(tmp_path / "account")),
            settings,
            dsl.Artifact(uri=str(tmp_path / "profile")),
            dsl.HTML(uri=str(tmp_path / "report")),
        )

    return run


def entry(store, make_entry, number):
    mask = np.zeros((6, 16, 16), np.uint8)
    mask[2:4, 4 : 6 + number % 5, 4:8] = 1
    encoded = encode_volume(Volume(np.full((6, 16, 16, 3), 10 * number, np.uint8), mask))
    store.write(volume_key(encoded.digest), encoded.data)
    return make_entry(
        number,
        digest=encoded.digest,
        slices=6,
        height=16,
        width=16,
        tumour_slices=2,
        tumour_pixels=int(mask.sum()),
    )


def test_leaves_json_and_a_page(run, tmp_path):
    run(12, "montage_volumes: 3")
    loaded = json.loads((tmp_path / "profile").read_text())
    assert loaded["counts"]["patients"] == 12
    assert (tmp_path / "report").read_text().count("data:image/webp") == 3


def test_leaves_them_before_it_stops_the_run(run, tmp_path, capfd):
    with pytest.raises(SystemExit):
        run(4, "")
    *_, message = capfd.readouterr().err.splitlines()
    assert "brainseg error: profile: this data set is not fit for training. patients: 4" in message
    kept = re.search(r"The page (\S+/store/reports/[0-9a-f]{16}/profile.html) shows more$", message)
    assert Path(kept[1]).read_bytes() == (tmp_path / "report").read_bytes()
    assert json.loads((tmp_path / "profile").read_text())["limits"][0]["kept"] is False
    assert "Stopped here." in (tmp_path / "report").read_text()
    with pytest.raises(SystemExit):  # the same failure again is the same page
        run(4, "")
    assert len(list((tmp_path / "store" / "reports").iterdir())) == 1


def test_without_pictures_no_voxels_are_read(run, tmp_path):
    run(12, "montage_volumes: 0", stored=False)
    assert "None were asked for" in (tmp_path / "report").read_text()
    with pytest.raises(SystemExit):
        run(12, "montage_volumes: 1", stored=False)

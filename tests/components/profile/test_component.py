import json
import re
import shutil
from pathlib import Path

import pytest
from kfp import dsl

from components.profile.component import profile
from components.shared.dataset.manifest import manifest_key
from components.shared.storage.store import FolderStore


@pytest.fixture
def run(tmp_path, make_blob, publish, make_account, monkeypatch):
    """Runs the step's body as its process would, on stored volumes."""
    monkeypatch.setenv("BRAINSEG_CACHE", str(tmp_path / "cache"))
    store = FolderStore(tmp_path / "store")

    def run(patients, settings, stored=True, reference=None):
        data = publish(store, [make_blob(number) for number in range(patients)])
        if reference:
            store.write(manifest_key(reference.dataset_id), reference.to_json())
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
            reference_id=reference.dataset_id if reference else "",
        )

    return run


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
    assert "The run stops here." in (tmp_path / "report").read_text()
    with pytest.raises(SystemExit):  # the same failure again is the same page
        run(4, "")
    assert len(list((tmp_path / "store" / "reports").iterdir())) == 1


def test_without_pictures_no_voxels_are_read(run, tmp_path):
    run(12, "montage_volumes: 0", stored=False)
    assert "No pictures, because" in (tmp_path / "report").read_text()
    with pytest.raises(SystemExit):
        run(12, "montage_volumes: 1", stored=False)


def test_new_patients_are_compared_with_the_reference(run, tmp_path, make_data, capfd):
    run(12, "montage_volumes: 0", reference=make_data(30, site="ZZ"))
    log = capfd.readouterr().err
    assert "profile: the new patients differ from those of data set" in log
    assert "from site ZZ, fraction: 1 before, 0 in the new patients" in log
    drift = json.loads((tmp_path / "profile").read_text())["drift"]
    assert (drift["arrived"], drift["left"]) == (12, 30)
    assert "The new patients differ. " in (tmp_path / "report").read_text()


def test_drift_stops_the_run_where_that_is_set(run, tmp_path, make_data, capfd):
    with pytest.raises(SystemExit):
        run(12, "{montage_volumes: 0, on_drift: stop}", reference=make_data(30, site="ZZ"))
    log = capfd.readouterr().err
    assert "brainseg error: profile: the new patients differ from those of data set" in log
    assert "set profile.on_drift=warn, or raise profile.max_drift. The page " in log
    assert len(list((tmp_path / "store" / "reports").rglob("profile.html"))) == 1
    assert "DRIFTED" in (tmp_path / "report").read_text()


def test_patients_like_the_others_are_no_drift(run, tmp_path, make_data, capfd):
    run(12, "{montage_volumes: 0, on_drift: stop, max_drift: 1}", reference=make_data(30))
    assert "differ" not in capfd.readouterr().err


def test_a_reference_that_is_not_in_the_store_ends_the_step(run, make_data, capfd):
    with pytest.raises(SystemExit):
        run(12, "montage_volumes: 0", stored=False, reference=make_data(30))
    assert "has no data set" in capfd.readouterr().err

"""What is removed and what never is: real stores, a real MLflow, the real command."""

import json
import os
import re
import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from components.ingest.ingestion import ingest_source
from components.ingest.settings import IngestSettings
from components.shared.dataset.manifest import manifest_key
from components.shared.errors import UserError
from components.shared.storage.outcome import Outcome, leave_outcome
from components.shared.storage.s3 import parse_s3_uri
from components.shared.storage.store import open_store
from components.shared.tracking.runs import recording
from components.shared.tracking.server import connect
from components.shared.tracking.status import training_digest
from pipelines.gc import find_garbage, remove_garbage
from tests.components.conftest import new_run
from tests.components.shared.reading.sources.test_bucket import come_without_keys, set_policy

MONTH = timedelta(days=30)
STATE = "0" * 64
UNCHANGED = Outcome(kind="unchanged", reason="nothing is new", dataset_id="da7a")


def later(days=31):
    return datetime.now(UTC) + timedelta(days=days)


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    if request.param == "s3":
        return open_store(request.getfixturevalue("s3_store_uri"))
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def folder_store(tmp_path):
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def publish(tmp_path, write_volume):
    """Ingests patients by their numbers; equal numbers have equal voxels."""

    def publish(store, *numbers):
        source = tmp_path / uuid.uuid4().hex
        for number in numbers:
            write_volume(source, f"TCGA_CS_{number:04d}_19990101")
        return ingest_source(str(source), store, IngestSettings(), workers=1).manifest

    return publish


def checkpoint(store, run_id=None, status=None):
    """A training's state; its run in MLflow is in a state too, or there is none."""
    digest = uuid.uuid4().hex[:16]
    if run_id:
        digest = training_digest(connect().get_run(run_id))
        if status:
            connect().set_terminated(run_id, status)
    store.write(f"checkpoints/{digest}/state-000001-000000.json", b"{}")
    store.write(f"checkpoints/{digest}/{STATE}.ckpt", b"1" * 1000)
    return digest


def champion(client, dataset_id, **tags):
    name = uuid.uuid4().hex
    client.create_registered_model(name)
    tags |= {"dataset_id": dataset_id}
    client.create_model_version(name, source="s3://models/none", tags=tags)
    client.set_registered_model_alias(name, "champion", "1")
    return name


@pytest.fixture(scope="module")
def mlflow_uri(tmp_path_factory, make_mlflow):
    return make_mlflow(tmp_path_factory.mktemp("mlflow"))


@pytest.fixture
def no_champions(mlflow_uri, monkeypatch):
    """An MLflow without the champions of the tests before; theirs are in other stores."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    client = connect()
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)
    return client


def found(store, kind, **options):
    findings = find_garbage(store, MONTH, options.pop("now", later()), **options)
    return {item.key for item in findings.garbage if item.kind == kind}


class TestCheckpoints:
    @pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
    def test_of_a_training_that_has_ended_are_garbage(self, store, no_champions, status):
        digest = checkpoint(store, new_run(), status)
        (item,) = find_garbage(store, MONTH, later()).garbage
        assert (item.kind, item.key) == ("checkpoints", f"checkpoints/{digest}/")
        assert item.bytes == 1002
        assert item.reason == f"its run has ended in MLflow: {status}"

    def test_of_one_that_goes_on_are_not(self, store, no_champions):
        run_id = new_run()
        digest = checkpoint(store, run_id)
        findings = find_garbage(store, MONTH, later())
        assert findings.garbage == ()
        assert findings.kept == (
            f"checkpoints/{digest}/: its run {run_id} is RUNNING in MLflow; if it is dead, delete "
            "that run in MLflow",
        )
        no_champions.delete_run(run_id)
        assert found(store, "checkpoints") == {f"checkpoints/{digest}/"}

    def test_of_a_run_that_another_tool_made_are_found_too(self, store, no_champions, monkeypatch):
        joined = no_champions.create_run("0").info.run_id
        monkeypatch.setenv("MLFLOW_RUN_ID", joined)
        assert new_run() == joined
        checkpoint(store, joined)
        assert found(store, "checkpoints") == set()

    def test_that_mlflow_does_not_know_are_garbage(self, store, no_champions):
        digest = checkpoint(store)
        assert found(store, "checkpoints") == {f"checkpoints/{digest}/"}

    def test_that_are_young_are_left_alone(self, store, no_champions):
        checkpoint(store)
        checkpoint(store, new_run(), "FAILED")
        assert found(store, "checkpoints", now=later(29)) == set()

    def test_other_files_there_are_not_ours(self, store, no_champions):
        store.write("checkpoints/resnet.pt", b"1")
        store.write("checkpoints/mine/resnet.pt", b"1")
        assert found(store, "checkpoints") == set()

    def test_whose_training_began_again_meanwhile_stay(self, store, no_champions, monkeypatch):
        run_id = new_run()
        digest = checkpoint(store, run_id, "FAILED")
        real = find_garbage

        def find_and_begin(*arguments):
            findings = real(*arguments)
            with recording(run_id):  # its next attempt
                return findings

        monkeypatch.setattr("pipelines.gc.find_garbage", find_and_begin)
        monkeypatch.setattr("components.shared.tracking.runs.set_status", _only_begin)
        findings = remove_garbage(store, MONTH, later())
        assert findings.garbage == ()
        assert findings.kept == (f"checkpoints/{digest}/: written since it was found",)
        assert store.exists(f"checkpoints/{digest}/state-000001-000000.json")


def _only_begin(client, run_id, status):
    if status == "RUNNING":
        client.update_run(run_id, status)


class TestVolumes:
    def test_that_no_data_set_names_are_garbage(self, store, no_champions, publish):
        one, two = publish(store, 1, 2), publish(store, 2, 3)
        assert found(store, "volume") == set()
        store.delete(manifest_key(one.dataset_id))
        findings = remove_garbage(store, MONTH, later())
        assert [item.reason for item in findings.garbage] == ["no data set names it"]
        left = {re.search(r"[0-9a-f]{64}", key)[0] for key in store.keys("volumes/")}
        assert left == {entry.digest for entry in two.volumes}
        assert list(store.keys("gc/")) == []

    def test_of_an_ingest_that_runs_are_young(self, store, no_champions, publish):
        store.delete(manifest_key(publish(store, 1).dataset_id))  # it comes last
        assert found(store, "volume", now=later(29)) == set()
        assert len(found(store, "volume")) == 1

    def test_are_left_alone_while_a_champions_manifest_is_lost(self, store, no_champions, publish):
        manifest = publish(store, 1, 2)
        name = champion(no_champions, manifest.dataset_id)
        store.delete(manifest_key(manifest.dataset_id))
        findings = remove_garbage(store, MONTH, later())
        assert findings.garbage == ()
        (refusal,) = findings.refused
        assert refusal.startswith(f"volumes are left alone: champion version 1 of {name} was")
        assert len(list(store.keys("volumes/"))) == 2

    @pytest.mark.parametrize("elsewhere", [True, False])
    def test_a_champion_from_another_store_needs_nothing_here(
        self, store, no_champions, publish, elsewhere
    ):
        manifest = publish(store, 1)
        where = "s3://elsewhere/store" if elsewhere else store.uri
        champion(no_champions, manifest.dataset_id, store=where)
        store.delete(manifest_key(manifest.dataset_id))
        assert len(found(store, "volume")) == int(elsewhere)

    def test_are_left_alone_while_a_manifest_cannot_be_read(self, store, no_champions, publish):
        publish(store, 1)
        key = manifest_key(publish(store, 2).dataset_id)
        store.write(key, b"{}")
        findings = find_garbage(store, MONTH, later())
        assert findings.garbage == ()
        assert "volumes are left alone" in findings.refused[0]
        assert key in findings.refused[0]


class TestTheRest:
    def test_what_old_runs_told_is_garbage(self, store, no_champions):
        leave_outcome(store, "one", UNCHANGED)
        store.write("reports/0123456789abcdef/profile.html", b"<html>")
        assert found(store, "run") == {"runs/one/"}
        assert found(store, "report") == {"reports/0123456789abcdef/"}
        assert find_garbage(store, MONTH, later(29)).garbage == ()
        remove_garbage(store, MONTH, later())
        assert list(store.keys("runs/")) == list(store.keys("reports/")) == []

    def test_files_of_killed_writers_are_garbage(self, folder_store, no_champions):
        folder_store.write("splits/a.json", b"{}")
        folder_store.write("gc/0123", b"")
        os.utime(folder_store.root / "gc/0123", (time.time() - 16 * 60,) * 2)
        part = folder_store.root / "volumes" / "ab" / ".part-x"
        part.parent.mkdir(parents=True)
        part.write_bytes(b"half")
        assert found(folder_store, "unfinished", now=later(29)) == set()
        assert found(folder_store, "unfinished") == {"volumes/ab/.part-x", "gc/0123"}
        remove_garbage(folder_store, MONTH, later())
        assert not part.parent.parent.exists()
        assert folder_store.exists("splits/a.json")

    def test_fetched_weights_stay_as_not_every_cluster_can_fetch_them(self, store, no_champions):
        store.write(f"weights/{STATE}", b"1")
        assert not remove_garbage(store, MONTH, later()).garbage
        assert store.exists(f"weights/{STATE}")

    def test_a_store_with_nothing_of_ours_is_a_mistake(self, store, no_champions):
        store.write("notes.txt", b"somebody's")
        with pytest.raises(UserError, match="holds no data set, volume or checkpoint; check the"):
            find_garbage(store, MONTH)

    def test_without_the_right_to_delete_nothing_is_left_behind(self, s3_store_uri, no_champions):
        store, (bucket, _) = open_store(s3_store_uri), parse_s3_uri(s3_store_uri)
        checkpoint(store)
        before = list(store.keys(""))
        everything = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
        set_policy(
            bucket,
            {"Effect": "Allow", "Action": "s3:*", "Resource": everything},
            {"Effect": "Deny", "Action": "s3:DeleteObject", "Resource": everything[1]},
        )
        limited = open_store(s3_store_uri)
        come_without_keys(limited)
        assert find_garbage(limited, MONTH, later()).garbage
        with pytest.raises(UserError, match=r"access to bucket .* is denied; check AWS_ACCESS"):
            remove_garbage(limited, MONTH, later())
        assert list(store.keys("")) == before

    def test_a_folder_that_may_not_be_written(self, public_path, without_root, no_champions):
        store = open_store(str(public_path / "store"))
        checkpoint(store)
        with without_root(), pytest.raises(UserError, match="no permission; change the folder's"):
            remove_garbage(store, MONTH, later())
        assert found(store, "checkpoints")

    def test_without_mlflow_only_what_needs_none_is_removed(self, store, publish, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
        digest = checkpoint(store)
        store.delete(manifest_key(publish(store, 1).dataset_id))
        leave_outcome(store, "one", UNCHANGED)
        findings = remove_garbage(store, MONTH, later())
        assert [item.kind for item in findings.garbage] == ["run"]
        assert findings.refused[0].startswith("checkpoints and volumes are left alone: MLflow at")
        assert store.exists(f"checkpoints/{digest}/state-000001-000000.json")
        assert len(list(store.keys("volumes/"))) == 1


class TestCommand:
    @pytest.fixture
    def old(self, folder_store, tmp_path):
        """A store of which everything was written a month ago."""
        digest = checkpoint(folder_store)
        for path in folder_store.root.rglob("*"):
            os.utime(path, (time.time() - 31 * 86400,) * 2)
        return f"checkpoints/{digest}/"

    def test_lists_and_removes_nothing(self, call, old, tmp_path, no_champions):
        code, out, err = call("gc", "--store", "store")
        assert code == 0, err
        assert old in out
        assert out.splitlines()[-1] == "1 items, 0.0 MB can be removed; --delete removes it"
        assert (tmp_path / "store" / old / "state-000001-000000.json").exists()
        as_json = json.loads(call("gc", "--store", "store", "--json")[1])
        assert (as_json["deleted"], as_json["garbage"][0]["key"]) == (False, old)

    def test_removes_and_leaves_no_empty_folder(self, brainseg, old, tmp_path, no_champions):
        uri = os.environ["MLFLOW_TRACKING_URI"]
        removed = brainseg(
            "gc", "--store", "store", "--delete", cwd=tmp_path, MLFLOW_TRACKING_URI=uri
        )
        assert removed.returncode == 0, removed.stderr
        assert list((tmp_path / "store").iterdir()) == []

    def test_younger_than_a_day_is_not_asked_for(self, call):
        code, _, err = call("gc", "--older-than", "0.5")
        assert code == 2
        assert "--older-than" in err

    def test_what_cannot_be_decided_is_no_success(self, call, old, tmp_path, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
        for delete, status in ((), 0), (("--delete",), 1):
            code, _, err = call("gc", "--store", "store", *delete)
            assert code == status
            assert "checkpoints and volumes are left alone" in err
        assert (tmp_path / "store" / old / "state-000001-000000.json").exists()

    def test_a_store_that_is_not_there(self, call, tmp_path, no_champions):
        code, _, err = call("gc", "--store", "nowhere")
        assert code == 1
        assert "holds no data set, volume or checkpoint; check the store" in err
        assert not (tmp_path / "nowhere").exists()

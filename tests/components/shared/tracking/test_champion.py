import contextlib
import sqlite3
import uuid

import pytest

from components.shared.errors import UserError
from components.shared.tracking.champion import champions, find_champion, require_champion
from components.shared.tracking.server import connect
from tests.components.conftest import BOTH_MLFLOWS


@BOTH_MLFLOWS
def test_a_missing_model_and_a_missing_alias_are_both_no_champion(any_mlflow):
    client, name = connect(), uuid.uuid4().hex
    assert find_champion(client, name) is None
    client.create_registered_model(name)
    assert find_champion(client, name) is None


@BOTH_MLFLOWS
def test_all_champions_of_a_server_are_found_page_by_page(any_mlflow, monkeypatch):
    monkeypatch.setattr("components.shared.tracking.champion._PAGE", 2)
    client, names = connect(), {uuid.uuid4().hex for _ in range(5)}
    for name in names:
        client.create_registered_model(name)
        client.create_model_version(name, source="s3://models/none")
    without, *others = sorted(names)
    for name in others:
        client.set_registered_model_alias(name, "champion", "1")
    found = {version.name for version in champions(client)}
    assert found & names == names - {without}


@pytest.fixture
def lost(no_mlflow, monkeypatch, make_mlflow, tmp_path):
    """A model whose champion was deleted on a server that keeps the alias (mlflow#24825)."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", make_mlflow(tmp_path))
    client = connect()
    client.create_registered_model("lost")
    client.create_model_version("lost", source="s3://models/none")
    client.set_registered_model_alias("lost", "champion", "1")
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute("UPDATE model_versions SET current_stage = 'Deleted_Internal'")
    return client


def test_a_champion_whose_version_was_deleted_is_none_with_a_warning(lost, caplog):
    assert find_champion(lost, "lost") is None
    assert "is on version 1, which was deleted" in caplog.text
    assert list(champions(lost)) == []


def test_a_command_reports_a_champion_whose_version_was_deleted(lost):
    with pytest.raises(UserError, match="the alias champion of model 'lost' is on version 1"):
        require_champion(lost, "lost")


@pytest.mark.parametrize("name", ["it's", 'say "x"', "50 %", "", "a/b"])
def test_any_name_can_be_asked_for(any_mlflow, name):
    client = connect()
    assert name == "" or find_champion(client, name) is None
    with pytest.raises(UserError, match="has no model"):
        require_champion(client, name)

import uuid

from components.shared.tracking.champion import champions, find_champion
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

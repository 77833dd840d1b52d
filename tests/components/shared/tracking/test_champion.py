import uuid

from components.shared.tracking.champion import find_champion
from components.shared.tracking.server import connect


def test_a_missing_model_and_a_missing_alias_are_both_no_champion(any_mlflow):
    client, name = connect(), uuid.uuid4().hex
    assert find_champion(client, name) is None
    client.create_registered_model(name)
    assert find_champion(client, name) is None

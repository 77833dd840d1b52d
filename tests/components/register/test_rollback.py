import uuid

import pytest

from components.register.registry import add_version
from components.register.rollback import Rollback, rollback
from components.shared.errors import UserError
from components.shared.tracking.champion import find_champion
from components.shared.tracking.server import connect
from tests.components.conftest import new_run


@pytest.fixture
def name():
    return uuid.uuid4().hex


def add(name, folder):
    return add_version(connect(), name, new_run(), folder, {}, [])


def champions(name, folder, *numbers):
    """Makes versions champion one after the other."""
    client, before = connect(), "none"
    for number in numbers:
        version = add(name, folder)
        assert str(version.version) == number
        client.set_model_version_tag(name, number, "champion_before", before)
        client.set_registered_model_alias(name, "champion", number)
        before = number


def refusal(name):
    with pytest.raises(UserError) as raised:
        rollback(name)
    assert connect().tracking_uri in str(raised.value)
    return str(raised.value)


def test_an_unknown_model_is_not_one_without_a_champion(any_mlflow, name, threshold_model):
    assert f"has no model '{name}' (it has" in refusal(name)
    add(name, threshold_model(140))
    assert f"model '{name}' of MLflow at " in refusal(name)
    assert "has no champion" in refusal(name)
    assert name in refusal(f"{name}-2").partition("it has: ")[2]


@pytest.mark.parametrize("bad", ["", " ", "a/b", "a:b", "a'b", "../x", "x" * 2000])
def test_a_name_that_no_model_can_have_is_reported(any_mlflow, bad):
    assert repr(bad) in refusal(bad)


def test_goes_back_step_by_step_to_the_first(local_mlflow, name, threshold_model):
    champions(name, threshold_model(140), "1", "2", "3")
    assert rollback(name) == Rollback(name, "3", "2")
    assert rollback(name) == Rollback(name, "2", "1")
    assert f"version 1 of model '{name}'" in refusal(name)
    assert "is the first champion" in refusal(name)
    assert str(find_champion(connect(), name).version) == "1"
    assert connect().get_model_version(name, "3").tags["rolled_back_to"] == "2"


def test_a_deleted_version_is_reported(local_mlflow, name, threshold_model):
    champions(name, threshold_model(140), "1", "2")
    connect().delete_model_version(name, "1")
    assert "replaced version 1, which was deleted" in refusal(name)
    assert str(find_champion(connect(), name).version) == "2"


def test_needs_a_server(no_mlflow, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"http://127.0.0.1:9 cannot be used: connection refused"):
        rollback("brainseg")

import json
import os
from unittest import mock

import pytest

from components.shared.environment import adopt_settings, environment
from components.shared.errors import UserError

PLUGIN = {
    "endpoint": "http://plugin:5000",
    "parentRunId": "0a",
    "experimentId": "7",
    "authType": "kubernetes",
    "timeout": "30s",
}


def adopted(**variables):
    """The environment of a process with these variables, after it has adopted them."""
    with mock.patch.dict(os.environ, variables, clear=True):
        adopt_settings()
        once = dict(os.environ)
        adopt_settings()
        assert dict(os.environ) == once
        return {name: value for name, value in once.items() if not name.startswith("BRAINSEG_")}


def with_plugin(change=(), **variables):
    config = json.dumps({**PLUGIN, **dict(change)})
    found = adopted(KFP_MLFLOW_CONFIG=config, **variables)
    return found | ({"KFP_MLFLOW_CONFIG": "there"} if "KFP_MLFLOW_CONFIG" in found else {})


def test_variables_are_given_back():
    with mock.patch.dict(os.environ, {"ONE": "1"}, clear=True):
        with environment({"ONE": "2", "TWO": "2"}):
            assert dict(os.environ) == {"ONE": "2", "TWO": "2"}
        assert dict(os.environ) == {"ONE": "1"}


def test_ours_go_before_those_of_kfps_launcher():
    assert adopted(
        BRAINSEG_AWS_ENDPOINT_URL="http://ours",
        BRAINSEG_AWS_ACCESS_KEY_ID="ours",
        BRAINSEG_AWS_SECRET_ACCESS_KEY="secret",
        BRAINSEG_AWS_CA_BUNDLE="/ca.crt",
        BRAINSEG_MLFLOW_TRACKING_URI="http://mlflow",
        BRAINSEG_CACHE="/cache",
        AWS_ENDPOINT_URL_S3="http://theirs",
        AWS_ACCESS_KEY_ID="theirs",
        AWS_SESSION_TOKEN="of their key",
    ) == {
        "AWS_ENDPOINT_URL": "http://ours",
        "AWS_ACCESS_KEY_ID": "ours",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_CA_BUNDLE": "/ca.crt",
        "MLFLOW_TRACKING_URI": "http://mlflow",
    }


def test_a_role_is_taken_where_there_is_no_key():
    role = {"AWS_ROLE_ARN": "arn", "AWS_WEB_IDENTITY_TOKEN_FILE": "/token", "AWS_REGION": "a"}
    found = adopted(BRAINSEG_AWS_REGION="b", BRAINSEG_AWS_ENDPOINT_URL_S3="", **role)
    assert found == {**role, "AWS_REGION": "b"}


def test_the_plugin_sets_the_server_and_its_authentication():
    found = with_plugin({"insecureSkipVerify": True})
    assert found == {
        "KFP_MLFLOW_CONFIG": "there",
        "MLFLOW_TRACKING_URI": "http://plugin:5000",
        "MLFLOW_TRACKING_AUTH": "kubernetes",
        "MLFLOW_TRACKING_INSECURE_TLS": "true",
    }


def test_the_plugins_workspace_is_sent_with_the_token():
    found = with_plugin({"workspace": "team", "workspacesEnabled": True})
    assert found["MLFLOW_WORKSPACE"] == "team"
    assert found["MLFLOW_TRACKING_AUTH"] == "kubernetes-namespaced"


def test_what_is_injected_stays():
    given = {
        "MLFLOW_TRACKING_URI": "http://plugin:5000/",
        "MLFLOW_TRACKING_TOKEN": "token",
        "MLFLOW_RUN_ID": "0b",
    }
    expected = {"KFP_MLFLOW_CONFIG": "there", **given}
    assert with_plugin({"authType": "bearer"}, **given) == expected


def test_what_the_plugin_says_does_not_hold_for_another_server():
    found = with_plugin(
        MLFLOW_TRACKING_URI="http://ours",
        MLFLOW_RUN_ID="0b",
        MLFLOW_EXPERIMENT_ID="7",
        MLFLOW_WORKSPACE="team",
        MLFLOW_TRACKING_AUTH="kubernetes-namespaced",
        BRAINSEG_MLFLOW_WORKSPACE="mine",
        BRAINSEG_MLFLOW_TRACKING_USERNAME="me",
    )
    assert found == {
        "MLFLOW_TRACKING_URI": "http://ours",
        "MLFLOW_TRACKING_USERNAME": "me",
        "MLFLOW_WORKSPACE": "mine",
    }


@pytest.mark.parametrize("text", ["{", "[]", '{"endpoint": "http://plugin"}', "3"])
def test_what_kfp_does_not_write_is_reported(text):
    with pytest.raises(UserError, match="not the JSON of KFP's MLflow plugin; let KFP set it"):
        adopted(KFP_MLFLOW_CONFIG=text)

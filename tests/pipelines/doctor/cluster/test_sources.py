import pytest

from pipelines.doctor.cluster.sources import check_sources
from tests.pipelines.doctor.cluster.api_server import OF_RUNS, encoded, named

SETTINGS = f"{OF_RUNS}/configmaps/brainseg-settings"
STORE = f"{OF_RUNS}/secrets/brainseg-store"


def checked(cluster, target, about):
    (check,) = [each for each in check_sources(cluster, target) if about in each.found]
    return check


def test_each_object_is_looked_at_once(cluster, server, target):
    list(check_sources(cluster, target))
    assert {f"GET {SETTINGS}", f"GET {STORE}"} <= set(server.requests)
    assert len(server.requests) == len(set(server.requests))


def test_a_needed_object_that_is_not_there(cluster, server, target):
    del server.objects[SETTINGS]
    check = checked(cluster, target, "brainseg-settings")
    assert (check.status, check.found) == ("error", "there is no ConfigMap brainseg-settings")
    assert "kubectl apply -k" in check.advice


def test_a_needed_secret_that_is_not_there(cluster, server, profile_of):
    env = {"KAGGLE_KEY": "key", "KAGGLE_USERNAME": "user"}
    target = profile_of(ingest={"secrets": [{"name": "kaggle", "env": env}]})
    check = checked(cluster, target, "kaggle")
    assert (check.status, check.found) == ("error", "there is no Secret kaggle")
    assert check.advice == (
        "kubectl create secret generic kaggle --from-file=key=FILE --from-file=user=FILE"
    )


def test_an_optional_object_that_is_not_there(cluster, server, target):
    del server.objects[STORE]
    check = checked(cluster, target, "brainseg-store")
    assert (check.status, check.found) == (
        "ok",
        "Secret brainseg-store is not there, and is optional",
    )


@pytest.mark.parametrize("value", [None, ""])
def test_a_needed_key_that_is_missing_or_empty(cluster, server, target, value):
    data = server.objects[SETTINGS]["data"]
    data.pop("MLFLOW_TRACKING_URI")
    data |= {} if value is None else {"MLFLOW_TRACKING_URI": value}
    check = checked(cluster, target, "brainseg-settings")
    assert check.status == "error"
    assert "no value for MLFLOW_TRACKING_URI" in check.found
    assert "steps do not start without" in check.advice


def test_half_of_an_optional_secret_is_wrong(cluster, server, target):
    server.objects[STORE]["data"].pop("AWS_SECRET_ACCESS_KEY")
    check = checked(cluster, target, "brainseg-store")
    assert check.status == "error"
    assert "no value for AWS_SECRET_ACCESS_KEY" in check.found
    assert "or delete what is there" in check.advice


def test_an_optional_key_is_named_where_it_is_there(cluster, server, target):
    server.objects[SETTINGS]["data"]["BRAINSEG_AWS_CA_BUNDLE"] = "/etc/brainseg/ca/ca.crt"
    assert "BRAINSEG_AWS_CA_BUNDLE" in checked(cluster, target, "brainseg-settings").found


def test_a_line_break_that_came_with_a_file(cluster, server, target):
    server.objects[STORE]["data"] |= encoded(AWS_SECRET_ACCESS_KEY="the-key\n")
    check = checked(cluster, target, "brainseg-store")
    assert check.status == "error"
    assert check.found == "Secret brainseg-store: a line break ends AWS_SECRET_ACCESS_KEY"
    assert "the-key" not in str(check)


def test_secrets_that_may_not_be_seen(cluster, server, target):
    server.forbidden = ["secrets/"]
    check = checked(cluster, target, "brainseg-store")
    assert check.status == "unknown"
    assert check.advice.endswith("kubectl -n brainseg describe Secret brainseg-store")
    assert checked(cluster, target, "brainseg-settings").status == "ok"


def test_files_of_a_config_map(cluster, server, target):
    server.objects[f"{OF_RUNS}/configmaps/brainseg-ca"] = named(
        "brainseg-ca", data={"ca.crt": "-----BEGIN"}
    )
    assert checked(cluster, target, "brainseg-ca").status == "ok"


def test_the_key_of_a_registry(cluster, server, profile_of):
    target = profile_of(all={"pull_secrets": ["registry"]})
    assert checked(cluster, target, "registry").found == "there is no Secret registry"
    place = f"{OF_RUNS}/secrets/registry"
    server.objects[place] = named("registry", data=encoded(password="x"))
    assert "no value for .dockerconfigjson" in checked(cluster, target, "Secret registry").found
    server.objects[place]["data"] = encoded(**{".dockerconfigjson": "{}\n"})
    assert checked(cluster, target, "Secret registry").status == "ok"

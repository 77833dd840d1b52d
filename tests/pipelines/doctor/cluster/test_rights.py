import pytest
import yaml

from components.shared.cluster import KubernetesError
from pipelines.doctor.cluster.rights import OWN, RUNS, check_own_rights, check_run_rights
from tests.pipelines.doctor.cluster.api_server import OF_RUNS
from tests.test_layout import PROJECT

ROLE = PROJECT / "manifests" / "base" / "access" / "brainseg-run-role.yaml"
# that MLflow server asks for it itself, and only where KFP's plugin has it so
NOT_OF_EVERY_RUN = {"mlflow.kubeflow.org"}


def every(rights):
    for right in rights:
        for verb in right.verbs.split():
            yield right, verb, f"{verb} {right.object.partition('/')[0]}"


def about(right):
    part = right.resource.partition("/")[2]
    kind = right.resource.partition("/")[0] + (f".{right.group}" if right.group else "")
    return f"{kind}/{part}" if part else kind


def test_what_runs_need_is_what_their_role_gives():
    rules = yaml.safe_load(ROLE.read_text())["rules"]
    given = {
        (group, resource, verb, name)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
        if group not in NOT_OF_EVERY_RUN
    }
    asked = {
        (right.group, right.resource, verb, right.name)
        for right in RUNS
        for verb in right.verbs.split()
    }
    assert asked == given


@pytest.mark.parametrize(("right", "verb"), [(right, verb) for right, verb, _ in every(OWN)])
def test_each_right_of_the_caller_that_is_missing_is_named(cluster, server, target, right, verb):
    server.denied = {f"{verb} {about(right)}"}
    (check,) = check_own_rights(cluster, target)
    assert check.status == "unknown"
    assert f"{verb} {right.object} ({right.why}" in check.found


@pytest.mark.parametrize("way", ["asked about", "in its place"])
@pytest.mark.parametrize(
    ("right", "verb"), [(right, verb) for right, verb, _ in every(RUNS) if not right.only_for]
)
def test_each_right_of_runs_that_is_missing_is_named(cluster, server, target, right, verb, way):
    server.denied = {f"brainseg-run {verb} {about(right)}"}
    if way == "in its place":  # who may act as an account, and not ask about it
        server.forbidden = ["localsubjectaccessreviews"]
    (check,) = check_run_rights(cluster, target)
    assert check.status == "error"
    assert check.found == f"brainseg-run may not {verb} {right.object} ({right.why})"
    assert "manifests/base/access/" in check.advice


def test_what_the_caller_may_not_learn_about_runs(cluster, server, target):
    server.forbidden = ["accessreviews"]
    with pytest.raises(KubernetesError):
        list(check_run_rights(cluster, target))


@pytest.mark.parametrize("backend", ["job", "trainjob"])
def test_a_group_of_pods_needs_more(cluster, server, profile_of, backend):
    server.denied = {
        "brainseg-run create jobs.batch",
        "brainseg-run create trainjobs.trainer.kubeflow.org",
    }
    (alone,) = check_run_rights(cluster, profile_of())
    assert alone.status == "ok"
    target = profile_of(train={"pod_group": {"backend": backend}})
    (grouped,) = check_run_rights(cluster, target)
    assert grouped.status == "error"
    assert "create jobs.batch (" in grouped.found
    assert ("create trainjobs" in grouped.found) == (backend == "trainjob")


def test_an_account_without_a_token(cluster, server, target):
    account = server.objects[f"{OF_RUNS}/serviceaccounts/brainseg-run"]
    account["automountServiceAccountToken"] = False
    found = list(check_run_rights(cluster, target))
    assert [check.status for check in found] == ["error", "ok"]
    assert found[0].found == "brainseg-run gives its pods no token"


def test_an_account_that_is_not_there(cluster, server, target):
    del server.objects[f"{OF_RUNS}/serviceaccounts/brainseg-run"]
    (check,) = check_run_rights(cluster, target)
    assert (check.status, check.found) == ("error", "there is no ServiceAccount brainseg-run")


def test_rights_outside_namespaces_are_asked_outside(cluster, server, target, monkeypatch):
    asked = []
    monkeypatch.setattr(
        server, "_allows", lambda spec, _: asked.append(spec["resourceAttributes"]) or True
    )
    list(check_own_rights(cluster, target))
    places = {each["resource"]: each["namespace"] for each in asked}
    assert places["nodes"] == ""
    assert places["secrets"] == "brainseg"

import pytest
import yaml
from google.protobuf.json_format import MessageToDict

from components.shared.errors import UserError
from pipelines.catalogue import COMPONENTS, PIPELINES
from pipelines.placement.placing import placed
from pipelines.placement.profiles import load_profile, profile_names

SMALL = {"cpu": {"request": 1, "limit": 2}, "memory": {"request": "1Gi", "limit": "2Gi"}}


@pytest.fixture
def profile(tmp_path):
    def read(**sections):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(sections))
        return load_profile(str(path))

    return read


def whole(**sections):
    every = {**SMALL, "timeout_s": 60, **sections.pop("all", {})}
    return {"run": {"deadline_s": 600, "ttl_s": 60}, "all": every, **sections}


def match(operator, *values):
    return {
        "affinity": [{"match": [{"key": "gpus", "operator": operator, "values": list(values)}]}]
    }


@pytest.mark.parametrize("name", profile_names())
def test_a_profile_that_comes_along_names_every_step(name):
    assert set(load_profile(name).steps) == set(COMPONENTS)


def test_a_step_has_what_all_have_and_changes_single_values(profile):
    found = profile(**whole(train={"memory": {"limit": "8Gi"}, "gpu": {"count": 2}}))
    assert found.steps["train"].memory.request == "1Gi"
    assert found.steps["train"].memory.limit == "8Gi"
    assert found.steps["train"].gpu.count == 2
    assert found.steps["evaluate"].gpu is None


def test_a_profile_that_extends_another_is_silent_on_what_stays(profile):
    found = profile(extends="gpu", all={"queue": "mri"}, train={"gpu": None})
    assert found.steps["train"].gpu is None
    assert found.steps["train"].queue == found.steps["ingest"].queue == "mri"
    assert found.steps["train"].memory == load_profile("gpu").steps["train"].memory


def test_a_profile_may_not_extend_itself(tmp_path):
    path = tmp_path / "round.yaml"
    path.write_text(f"extends: {path}")
    with pytest.raises(UserError, match="this never ends"):
        load_profile(str(path))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (whole(trian={"queue": "a"}), r"trian is not a section \(nearest: train\)"),
        (whole(all={"qeue": "a"}), r"all.qeue is not a setting \(nearest: .*queue\)"),
        (whole(train={"memory": {"limit": "8GB"}}), r"train.memory.limit='8GB'"),
        (whole(train={"cpu": {"request": 3}}), "the request 3 is above the limit 2"),
        (whole(train={"gpu": {"count": 0}}), "train.gpu.count=0"),
        (whole(all={"user": 0}), "all.user=0"),
        (whole(all={"cpu": {"request": -1, "limit": 1}}), "must be more than 0"),
        (whole(train={"timeout_s": 601}), "601 is above run.deadline_s 600"),
        (whole(all={"scratch": {"shared_memory": "2Gi"}}), "counts as memory of the pod"),
        (whole(all={"env": {"NO-NAME": "x"}}), "all.env.NO-NAME"),
        (whole(train=[1]), r"train must hold `key: value` pairs, not \[1\]"),
        ({"all": {**SMALL, "timeout_s": 1}}, "run.deadline_s"),
    ],
)
def test_a_profile_that_no_cluster_could_run_is_refused(profile, sections, message):
    with pytest.raises(UserError, match=message):
        profile(**sections)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queue": "My Queue"}, "all.queue='My Queue': .*must be lower-case letters, digits"),
        ({"queue": "q" * 64}, "at most 63 characters"),
        ({"labels": {"team": "a team"}}, "all.labels.team='a team': .*must be letters, digits"),
        ({"labels": {"a team": "x"}}, "all.labels.a team.*must be NAME or DOMAIN/NAME"),
        ({"annotations": {"/a": "any text"}}, "all.annotations./a.*must be NAME or DOMAIN/NAME"),
        ({"node_selector": {"pool": "gpu nodes"}}, "all.node_selector.pool='gpu nodes'"),
        ({"node_selector": {"pool?": "gpu"}}, "must be NAME or DOMAIN/NAME"),
        ({"pull_secrets": ["Registry"]}, "all.pull_secrets.0='Registry'"),
        ({"secrets": [{"name": "my_store", "env": {"A": "a"}}]}, "all.secrets.0.name='my_store'"),
        ({"secrets": [{"name": "store", "env": {"A": "a b"}}]}, "all.secrets.0.env.A='a b'"),
        ({"config": [{"name": "Settings", "env": {"A": "a"}}]}, "all.config.0.name='Settings'"),
        ({"files": [{"name": "C A", "path": "/ca"}]}, "all.files.0.name='C A'"),
        ({"files": [{"name": "ca", "path": "ca"}]}, "must be an absolute path"),
        ({"files": [{"name": "ca", "path": "/ca/../tmp"}]}, r"without \.\."),
        ({"files": [{"name": "ca", "path": "/dev/"}]}, "/dev/shm of the pod is there"),
        ({"files": [{"name": "ca", "path": "//tmp"}]}, "/tmp of the pod is there"),
        ({"files": [{"name": "ca", "path": "/"}]}, "/tmp, /cache, /dev/shm, /kfp-launcher"),
        (
            {"files": [{"name": "ca", "path": "/ca"}, {"name": "other", "path": "/ca/"}]},
            "files: /ca is the folder of two ConfigMaps",
        ),
        ({"tolerations": [{"key": "a b"}]}, "all.tolerations.0.key='a b'"),
        (
            {"tolerations": [{"key": "a", "value": "b"}]},
            "Exists accepts no value, and 'b' is given",
        ),
        ({"tolerations": [{"operator": "Equal"}]}, "Equal needs a key"),
        (match("In"), "In needs values"),
        (match("Exists", "a"), "Exists accepts no values"),
        (match("Gt", "many"), "Gt accepts one whole number"),
        ({"pod_group": {"service_account": "Me"}}, "all.pod_group.service_account='Me'"),
        ({"pod_group": {"queue": "My Queue"}}, "all.pod_group.queue='My Queue'"),
    ],
)
def test_a_name_that_kubernetes_refuses_is_refused_before_a_pod_is_made(profile, settings, message):
    with pytest.raises(UserError, match=message):
        profile(**whole(all=settings))


def test_files_may_not_hide_a_folder_that_the_pod_has(profile):
    scratch = {"tmp": "1Gi", "cache": "1Gi", "shared_memory": "1Gi"}
    made = placed(PIPELINES["training"], profile(**whole(all={"scratch": scratch})))
    pods = MessageToDict(made.platform_spec)["platforms"]["kubernetes"]["deploymentSpec"]
    folders = pods["executors"]["exec-train"]["emptyDirMounts"]
    assert len(folders) == 3
    for folder in folders:
        with pytest.raises(UserError, match="of the pod is there; give another folder"):
            profile(**whole(all={"files": [{"name": "ca", "path": folder["mountPath"]}]}))


def test_names_that_kubernetes_takes_are_taken(profile):
    settings = {
        "queue": "team-a",
        "labels": {"example.com/Team": "A_b.c-1", "empty": ""},
        "annotations": {"example.com/note": "any text: {}"},
        "node_selector": {"kubernetes.io/arch": "amd64"},
        "pull_secrets": ["registry.example"],
        "files": [{"name": "ca", "path": "/etc/brainseg/ca/"}, {"name": "b", "path": "/tmp/b"}],
        "tolerations": [{}, {"key": "pool", "operator": "Equal", "value": "gpu"}],
        **match("Gt", "8"),
    }
    found = profile(**whole(all=settings)).steps["train"]
    assert (found.queue, found.labels["empty"]) == ("team-a", "")
    assert found.files[0].path == "/etc/brainseg/ca"


def test_an_unknown_profile_is_told_with_those_that_there_are(tmp_path):
    with pytest.raises(UserError, match=r"'tpu' \(nearest: gpu\); there are cpu, gpu, test"):
        load_profile("tpu")
    (tmp_path / "a.yaml").write_text("[")
    with pytest.raises(UserError, match="not valid YAML"):
        load_profile(str(tmp_path / "a.yaml"))
    (tmp_path / "b.yaml").write_text("- 1")
    with pytest.raises(UserError, match="must hold sections by name"):
        load_profile(str(tmp_path / "b.yaml"))


@pytest.mark.parametrize("retries", [0, 1, 5])
def test_the_retry_window_holds_every_attempt_and_every_pause(profile, retries):
    step = profile(**whole(all={"retries": retries, "backoff_s": 7})).steps["train"]
    pauses_s = sum(7 * 2**attempt for attempt in range(retries))
    assert step.retry_window_s > (retries + 1) * step.timeout_s + pauses_s

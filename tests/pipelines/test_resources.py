import pytest
import yaml

from components.shared.errors import UserError
from pipelines.catalogue import COMPONENTS
from pipelines.resources import load_profile, profile_names

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
    with pytest.raises(UserError, match="that has no end"):
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
        (whole(all={"scratch": {"shared_memory": "2Gi"}}), "is memory of the pod"),
        (whole(all={"env": {"NO-NAME": "x"}}), "all.env.NO-NAME"),
        (whole(train=[1]), r"train must hold `key: value` pairs, not \[1\]"),
        ({"all": {**SMALL, "timeout_s": 1}}, "run.deadline_s"),
    ],
)
def test_a_profile_that_no_cluster_could_run_is_refused(profile, sections, message):
    with pytest.raises(UserError, match=message):
        profile(**sections)


def test_an_unknown_profile_is_told_with_those_that_there_are(tmp_path):
    with pytest.raises(UserError, match="no pod profile 'tpu'; there are cpu, gpu, test"):
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

import json

import pytest
import yaml
from google.protobuf.json_format import MessageToDict, ParseDict
from kfp import dsl, kubernetes
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig

from components.shared.errors import UserError
from components.shared.step import data_step
from components.train.group.settings import GroupSettings
from pipelines.catalogue import PIPELINES
from pipelines.placement.placing import placed, step_of
from pipelines.placement.pod import pod_fragment
from pipelines.placement.profiles import load_profile
from tests.pipelines import graphs
from tests.pipelines.placement.test_pod import FULL


@pytest.fixture
def profile(tmp_path):
    def read(**sections):
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"extends": "cpu", **sections}))
        return load_profile(str(tmp_path / "mine.yaml"))

    return read


def pods_of(pipeline):
    platform = MessageToDict(pipeline.platform_spec)["platforms"]["kubernetes"]
    return platform["deploymentSpec"]["executors"]


@data_step
def train() -> None:
    """Stands for the step: the same name, nothing to do."""


@dsl.pipeline(name="reference")
def by_kfps_own_functions():
    task = train()
    kubernetes.set_timeout(task, 100)
    kubernetes.set_image_pull_policy(task, "Always")
    kubernetes.set_image_pull_secrets(task, ["registry"])
    kubernetes.set_security_context(task, 1234, 99, True)
    kubernetes.add_node_selector(task, "disk", "fast")
    kubernetes.add_pod_label(task, "team", "a")
    kubernetes.add_pod_label(task, "kueue.x-k8s.io/queue-name", "mri")
    kubernetes.add_pod_annotation(task, "note", "b")
    kubernetes.add_toleration(task, "gpu", "Equal", "yes", "NoSchedule")
    kubernetes.add_node_affinity(
        task, match_expressions=[{"key": "zone", "operator": "In", "values": ["a", "b"]}]
    )
    kubernetes.add_node_affinity(
        task, match_expressions=[{"key": "spot", "operator": "DoesNotExist"}], weight=5
    )
    kubernetes.use_config_map_as_env(task, "settings", {"a": "A"}, optional=False)
    kubernetes.use_secret_as_env(task, "secret", {"b": "B"}, optional=True)
    kubernetes.use_config_map_as_volume(task, "ca", "/etc/ca")
    kubernetes.use_field_path_as_env(task, "KFP_RUN_ID", "metadata.labels['pipeline/runid']")
    kubernetes.empty_dir_mount(task, "tmp", "/tmp", None, "1Gi")
    kubernetes.empty_dir_mount(task, "cache", "/cache", None, "2Gi")
    kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", "Memory", "3Gi")
    task.set_accelerator_type("amd.com/gpu").set_accelerator_limit("2")
    task.set_env_variable("OMP_NUM_THREADS", "2")


def message(pod):
    return MessageToDict(ParseDict(pod, KubernetesExecutorConfig()))


def test_a_pod_is_what_kfps_own_functions_would_make_of_it(profile):
    @dsl.pipeline(name="plain")
    def plain():
        train()

    mine = placed(plain, profile(train=FULL))
    assert message(pods_of(mine)["exec-train"]) == message(
        pods_of(by_kfps_own_functions)["exec-train"]
    )
    executors = [
        MessageToDict(graph.pipeline_spec.deployment_spec)["executors"]["exec-train"]["container"]
        for graph in (mine, by_kfps_own_functions)
    ]
    assert executors[0]["env"] == executors[1]["env"]
    accelerators = [each["resources"]["accelerator"] for each in executors]
    assert accelerators[0].items() <= accelerators[1].items()


def test_placing_leaves_the_graph_alone(profile):
    graph = PIPELINES["training"]
    before = graph.pipeline_spec.SerializeToString(deterministic=True)
    placed(graph, profile())
    assert graph.pipeline_spec.SerializeToString(deterministic=True) == before
    assert not graph.platform_spec.platforms


@pytest.mark.parametrize("name", PIPELINES)
def test_nothing_is_taken_from_kubeflows_cache(profile, name):
    spec = MessageToDict(placed(PIPELINES[name], profile()).pipeline_spec)
    parts = [part for part in [spec["root"], *spec["components"].values()] if "dag" in part]
    tasks = [task for part in parts for task in part["dag"]["tasks"].values()]
    assert tasks
    assert not any(task["cachingOptions"].get("enableCache") for task in tasks)


def test_every_use_of_a_step_has_its_settings_also_inside_of_loops(profile):
    @dsl.pipeline(name="inner")
    def inner():
        train()

    @dsl.pipeline(name="outer")
    def outer():
        train()
        with dsl.ParallelFor([1, 2]):
            inner()

    found = placed(outer, profile(train={"queue": "mri", "retries": 3}))
    for pod in pods_of(found).values():
        assert pod["podMetadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "mri"}
    spec = found.pipeline_spec
    dags = [spec.root.dag, *(each.dag for each in spec.components.values())]
    counts = [
        task.retry_policy.max_retry_count
        for dag in dags
        for task in dag.tasks.values()
        if spec.components[task.component_ref.name].executor_label
    ]
    assert counts == [3, 3]


def test_a_training_by_a_group_of_pods_is_the_same_task_with_two_settings(profile):
    train = {**FULL, "pod_group": {"pods": 4, "processes": 2, "backend": "trainjob"}}
    before, found = (
        MessageToDict(placed(PIPELINES["training"], profile(train=each)).pipeline_spec)
        for each in (FULL, train)
    )
    tasks = [each["root"]["dag"]["tasks"]["train"] for each in (before, found)]
    group, pod = (
        tasks[1]["inputs"]["parameters"].pop(name)["runtimeValue"]["constant"]
        for name in ("group", "pod")
    )
    assert tasks[0] == tasks[1]
    assert GroupSettings.model_validate_json(group) == GroupSettings(
        pods=4, processes=2, backend="trainjob", queue="mri"
    )
    assert json.loads(pod) == pod_fragment(profile(train=train).steps["train"])
    components = [each["components"]["comp-train"] for each in (before, found)]
    assert components[0] == components[1]


def test_a_step_that_follows_a_group_takes_no_device_and_no_certain_node(profile):
    train = {**FULL, "pod_group": {"pods": 4, "processes": 2}}
    alone, follower = (placed(PIPELINES["training"], profile(train=each)) for each in (FULL, train))
    executors = MessageToDict(follower.pipeline_spec)["deploymentSpec"]["executors"]
    assert executors["exec-train"]["container"]["resources"] == {
        "resourceCpuRequest": "50m",
        "resourceCpuLimit": "1",
        "resourceMemoryRequest": "64Mi",
        "resourceMemoryLimit": "2Gi",
    }
    pods = [pods_of(each)["exec-train"] for each in (alone, follower)]
    for field in ("nodeSelector", "nodeAffinity", "tolerations"):
        assert field in pods[0]
        assert field not in pods[1]
    for field in ("secretAsEnv", "configMapAsVolume", "emptyDirMounts", "imagePullSecret"):
        assert pods[0][field] == pods[1][field]


def test_only_the_pods_of_a_group_wait_in_a_queue(profile):
    train = {"queue": "mri", "pod_group": {"pods": 4}}
    pod = pods_of(placed(PIPELINES["training"], profile(train=train)))["exec-train"]
    assert "podMetadata" not in pod


def test_a_group_leaves_no_device_idle(profile):
    with pytest.raises(UserError, match=r"processes 1, gpu.count 2: each process trains on one"):
        profile(train={"gpu": {"count": 2}, "pod_group": {"pods": 4}})


def test_only_training_is_done_by_groups(profile):
    with pytest.raises(UserError, match="pod_group is a setting of train, not of evaluate"):
        profile(evaluate={"pod_group": {"pods": 2}})


def test_a_step_without_retries_has_no_policy(profile):
    found = placed(graphs.described, profile(all={"retries": 0}))
    tasks = found.pipeline_spec.root.dag.tasks.values()
    assert not any(task.HasField("retry_policy") for task in tasks)


def test_the_run_has_an_end_and_does_not_stay_for_ever(profile):
    found = placed(PIPELINES["training"], profile(run={"ttl_s": 7, "deadline_s": 700_000}))
    config = MessageToDict(found.platform_spec)["platforms"]["kubernetes"]["pipelineConfig"]
    assert config == {"resourceTtlOnCompletion": 7, "activeDeadlineSeconds": 700_000}


def test_a_pod_without_wishes_has_no_empty_fields(profile):
    pod = pods_of(placed(PIPELINES["training"], profile()))["exec-ingest"]
    assert "podMetadata" not in pod
    assert "nodeSelector" not in pod


def test_a_container_tells_its_step():
    executors = MessageToDict(graphs.twice.pipeline_spec)["deploymentSpec"]["executors"]
    assert {step_of(each["container"]) for each in executors.values()} == {"ingest"}

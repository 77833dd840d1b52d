"""Writes a pod profile and the images' full names into a copy of a graph.

KFP has functions for each pod setting, to be called where a task is made. They would tie the
graph to one kind of cluster. So the same messages (`kfp.kubernetes`' own protobuf) are written
into the compiled graph: the graphs say what follows what, the profile says where it runs.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict
from kfp.dsl.graph_component import GraphComponent
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

from components.train.component import train_group
from pipelines.graph import dags
from pipelines.placement.profiles import EnvSource, NodeAffinity, PodProfile, PodSettings, Scratch

_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
# equal in every pod of a run, and after KFP's "Retry"
_RUN_ID = {"name": "KFP_RUN_ID", "fieldPath": "metadata.labels['pipeline/runid']"}


def placed(pipeline: GraphComponent, profile: PodProfile) -> GraphComponent:
    """A copy of a graph whose steps have the pods that a profile describes.

    Args:
        pipeline: Any graph of this project's steps; it is not changed.
        profile: Settings of the run and of every step.
    """
    copied = copy.deepcopy(pipeline)
    spec, pods = copied.pipeline_spec, {}
    settings = {label: profile.steps[step] for label, step in _steps(spec)}
    if profile.steps["train"].pod_group:
        _train_in_groups(copied, profile.steps["train"])
    for label, found in settings.items():
        spec.deployment_spec["executors"][label]["container"].update(_container(found))
        pods[label] = _pod(found)
    for task in (task for dag in dags(copied) for task in dag.tasks.values()):
        label = spec.components[task.component_ref.name].executor_label
        task.ClearField("retry_policy")
        if label in settings and settings[label].retries:
            ParseDict(_retries(settings[label]), task.retry_policy)
    ParseDict(_platform(profile, pods), copied.platform_spec.platforms["kubernetes"])
    return copied


def step_of(container: Mapping[str, Any]) -> str:
    """The step that a container runs: the function's name, as KFP's executor is told it."""
    arguments = list(container["args"])
    return str(arguments[arguments.index("--function_to_execute") + 1])


def _train_in_groups(pipeline: GraphComponent, settings: PodSettings) -> None:
    """Puts `train_group` in `train`'s place, which has the same inputs and outputs.

    The settings become a constant of the task; the rest is KFP's to give, see its driver
    (backend/src/v2/driver/container.go at 2.17.0: an input of the type TASK_CONFIG).
    """
    spec, other = pipeline.pipeline_spec, train_group.pipeline_spec
    labels = {label for label, step in _steps(spec) if step == "train"}
    (executor,) = other.deployment_spec["executors"].values()
    (component,) = other.components.values()
    names = [name for name, each in spec.components.items() if each.executor_label in labels]
    for name in names:
        label = spec.components[name].executor_label
        spec.components[name].CopyFrom(component)
        spec.components[name].executor_label = label
        spec.deployment_spec["executors"][label].update(MessageToDict(executor))
    assert settings.pod_group
    group = settings.pod_group.model_copy(update={"queue": settings.queue})
    for task in (task for dag in dags(pipeline) for task in dag.tasks.values()):
        if task.component_ref.name in names:
            constant = task.inputs.parameters["group"].runtime_value.constant
            constant.string_value = group.model_dump_json()


def _steps(spec: PipelineSpec) -> Iterator[tuple[str, str]]:
    for label, executor in spec.deployment_spec["executors"].items():
        yield label, step_of(executor["container"])


def _platform(profile: PodProfile, pods: Mapping[str, Any]) -> dict[str, Any]:
    limits = {
        "resourceTtlOnCompletion": profile.run.ttl_s,
        "activeDeadlineSeconds": profile.run.deadline_s,
    }
    return {"deploymentSpec": {"executors": pods}, "pipelineConfig": limits}


def _container(settings: PodSettings) -> dict[str, Any]:
    resources: dict[str, Any] = {
        "resourceCpuRequest": settings.cpu.request,
        "resourceCpuLimit": settings.cpu.limit,
        "resourceMemoryRequest": settings.memory.request,
        "resourceMemoryLimit": settings.memory.limit,
    }
    if settings.gpu:
        resources["accelerator"] = {
            "resourceType": settings.gpu.type,
            "resourceCount": str(settings.gpu.count),
        }
    env = [{"name": name, "value": value} for name, value in settings.env.items()]
    return {"resources": resources, **({"env": env} if env else {})}


def _retries(settings: PodSettings) -> dict[str, Any]:
    return {
        "maxRetryCount": settings.retries,
        "backoffFactor": 2.0,
        "backoffDuration": f"{settings.backoff_s}s",
        "backoffMaxDuration": f"{settings.retry_window_s}s",
    }


def _pod(settings: PodSettings) -> dict[str, Any]:
    """A pod in the JSON form of KFP's message, which refuses what it does not know."""
    queued = settings.queue and not settings.pod_group  # of a group all wait, not who follows it
    queue = {_QUEUE_LABEL: settings.queue} if queued else {}
    pod = {
        "activeDeadlineSeconds": settings.timeout_s,
        "imagePullPolicy": settings.pull_policy,
        "imagePullSecret": [_named("secretName", name) for name in settings.pull_secrets],
        "securityContext": {
            "runAsUser": settings.user,
            "runAsGroup": settings.group,
            "runAsNonRoot": True,  # without it a namespace that enforces "restricted" refuses
        },
        "nodeSelector": _filled({"labels": dict(settings.node_selector)}),
        "podMetadata": _filled(
            {"labels": {**settings.labels, **queue}, "annotations": dict(settings.annotations)}
        ),
        "tolerations": [each.model_dump() for each in settings.tolerations],
        "nodeAffinity": [_affinity(each) for each in settings.affinity],
        "configMapAsEnv": [_variables("configMap", each) for each in settings.config],
        "secretAsEnv": [_variables("secret", each) for each in settings.secrets],
        "configMapAsVolume": [
            {**_named("configMapName", each.name), "mountPath": each.path}
            | {"optional": each.optional}
            for each in settings.files
        ],
        "fieldPathAsEnv": [_RUN_ID],
        "emptyDirMounts": list(_folders(settings.scratch)),
    }
    return dict(MessageToDict(ParseDict(_filled(pod), KubernetesExecutorConfig())))


def _filled(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value}


def _named(field: str, name: str) -> dict[str, Any]:
    """A name as KFP's own functions write it: in its present field and in the one before."""
    return {field: name, f"{field}Parameter": {"runtimeValue": {"constant": name}}}


def _variables(kind: str, source: EnvSource) -> dict[str, Any]:
    pairs = [{f"{kind}Key": key, "envVar": variable} for variable, key in source.env.items()]
    return {**_named(f"{kind}Name", source.name), "keyToEnv": pairs, "optional": source.optional}


def _affinity(affinity: NodeAffinity) -> dict[str, Any]:
    weight = {} if affinity.weight is None else {"weight": affinity.weight}
    return {"matchExpressions": [each.model_dump() for each in affinity.match], **weight}


def _folders(scratch: Scratch) -> Iterator[dict[str, Any]]:
    # KFP's launcher mounts no /tmp, and /dev/shm is 64 MiB where nothing is mounted
    yield {"volumeName": "tmp", "mountPath": "/tmp", "sizeLimit": scratch.tmp}
    if scratch.cache:
        yield {"volumeName": "cache", "mountPath": "/cache", "sizeLimit": scratch.cache}
    if scratch.shared_memory:
        shared = {"volumeName": "shared-memory", "mountPath": "/dev/shm", "medium": "Memory"}
        yield {**shared, "sizeLimit": scratch.shared_memory}

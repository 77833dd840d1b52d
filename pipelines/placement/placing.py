"""Writes a pod profile into a copy of a graph.

KFP has functions for each pod setting, to be called where a task is made. They would tie the
graph to one kind of cluster. So the same messages (`kfp.kubernetes`' own protobuf) are written
into the compiled graph: the graph defines the order of the steps, the profile where they run.
"""

import copy
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict
from kfp.dsl.graph_component import GraphComponent
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

from pipelines.graph import dags
from pipelines.placement.pod import Json, kfp_container, kfp_pod, pod_fragment
from pipelines.placement.profiles import PodProfile, PodSettings

_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
# equal in every pod of a run, and after KFP's "Retry"
_RUN_ID = {"name": "KFP_RUN_ID", "fieldPath": "metadata.labels['pipeline/runid']"}


def placed(pipeline: GraphComponent, profile: PodProfile) -> GraphComponent:
    """Return a copy of a graph with the pods of a profile, and without KFP's cache."""
    copied = copy.deepcopy(pipeline)
    spec, pods = copied.pipeline_spec, {}
    settings = {label: profile.steps[step] for label, step in _steps(spec)}
    if (train := profile.steps["train"]).pod_group:
        _group_training(copied, [label for label in settings if settings[label] is train], train)
    for label, found in settings.items():
        pod = _step_pod(found)
        container = spec.deployment_spec["executors"][label]["container"]
        container.update(kfp_container(pod))
        pods[label] = _message(found, pod)
    for task in (task for dag in dags(copied) for task in dag.tasks.values()):
        label = spec.components[task.component_ref.name].executor_label
        task.ClearField("retry_policy")
        # A source may grow under the same name. KFP's cache keys hold ids of input artifacts, so
        # after a step that always runs nothing is ever found.
        task.caching_options.enable_cache = False
        if label in settings and settings[label].retries:
            ParseDict(_retries(settings[label]), task.retry_policy)
    ParseDict(_platform(profile, pods), copied.platform_spec.platforms["kubernetes"])
    return copied


def step_of(container: Mapping[str, Any]) -> str:
    """Return the step that a container runs: the function's name in KFP's arguments."""
    arguments = list(container["args"])
    return str(arguments[arguments.index("--function_to_execute") + 1])


def _group_training(pipeline: GraphComponent, labels: Collection[str], train: PodSettings) -> None:
    """Sets the group and its pods as constants of the training tasks."""
    assert train.pod_group
    group = train.pod_group.model_copy(update={"queue": train.queue})
    constants = {"group": group.model_dump_json(), "pod": json.dumps(pod_fragment(train))}
    for task in (task for dag in dags(pipeline) for task in dag.tasks.values()):
        component = pipeline.pipeline_spec.components[task.component_ref.name]
        if component.executor_label in labels:
            for name, text in constants.items():
                task.inputs.parameters[name].runtime_value.constant.string_value = text


def _steps(spec: PipelineSpec) -> Iterator[tuple[str, str]]:
    for label, executor in spec.deployment_spec["executors"].items():
        yield label, step_of(executor["container"])


def _platform(profile: PodProfile, pods: Mapping[str, Any]) -> Json:
    limits = {
        "resourceTtlOnCompletion": profile.run.ttl_s,
        "activeDeadlineSeconds": profile.run.deadline_s,
    }
    return {"deploymentSpec": {"executors": pods}, "pipelineConfig": limits}


def _retries(settings: PodSettings) -> Json:
    return {
        "maxRetryCount": settings.retries,
        "backoffFactor": 2.0,
        "backoffDuration": f"{settings.backoff_s}s",
        "backoffMaxDuration": f"{settings.retry_window_s}s",
    }


def _step_pod(settings: PodSettings) -> Json:
    """The pod of a step; one that only follows a group needs no queue, devices or certain nodes."""
    pod = pod_fragment(settings)
    if settings.pod_group:
        for field in ("nodeSelector", "tolerations", "affinity"):
            pod["spec"].pop(field, None)
        del pod["spec"]["containers"][0]["resources"]
    elif settings.queue:
        pod["metadata"].setdefault("labels", {})[_QUEUE_LABEL] = settings.queue
    return pod


def _message(settings: PodSettings, pod: Json) -> Json:
    """A pod in the JSON form of KFP's message, which refuses unknown fields."""
    message = {
        **kfp_pod(pod),
        "activeDeadlineSeconds": settings.timeout_s,
        "fieldPathAsEnv": [_RUN_ID],
    }
    return dict(MessageToDict(ParseDict(message, KubernetesExecutorConfig())))

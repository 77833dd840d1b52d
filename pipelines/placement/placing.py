"""Writes a pod profile into a copy of a graph.

KFP has functions for each pod setting, to be called where a task is made. They would tie the
graph to one kind of cluster. So the same messages (`kfp.kubernetes`' own protobuf) are written
into the compiled graph: the graph defines the order of the steps, the profile where they run.
"""

import copy
import json
from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict
from kfp.dsl.graph_component import GraphComponent
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineTaskSpec

from pipelines.graph import dags
from pipelines.placement.images import NODES_OWN, Images
from pipelines.placement.pod import Json, kfp_container, kfp_pod, pod_fragment
from pipelines.placement.profiles import PodProfile, PodSettings

_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
# of a pod that follows a group: it checks weights with torch before it stores them
_FOLLOWING = {
    "requests": {"cpu": "50m", "memory": "64Mi"},
    "limits": {"cpu": "1", "memory": "2Gi"},
}
# equal in every pod of a run, and after KFP's "Retry"
_RUN_ID = {"name": "KFP_RUN_ID", "fieldPath": "metadata.labels['pipeline/runid']"}


def placed(
    pipeline: GraphComponent, profile: PodProfile, images: Images = NODES_OWN
) -> GraphComponent:
    """Return a copy of a graph with a profile's pods and the images' names, without KFP's cache."""
    copied = copy.deepcopy(pipeline)
    spec, settings, pods = copied.pipeline_spec, {}, {}
    for label, executor in spec.deployment_spec["executors"].items():
        container = executor["container"]
        settings[label] = found = profile.steps[step_of(container)]
        pod = _step_pod(found)
        container.update(kfp_container(pod))
        container["image"] = images.full_name(container["image"])
        pods[label] = _message(found, pod)
    for task in (task for dag in dags(copied) for task in dag.tasks.values()):
        label = spec.components[task.component_ref.name].executor_label
        task.ClearField("retry_policy")
        # A source may grow under the same name. KFP's cache keys hold ids of input artifacts, so
        # after a step that always runs nothing is ever found.
        task.caching_options.enable_cache = False
        if label in settings:
            _configure(task, settings[label])
    limits = {
        "resourceTtlOnCompletion": profile.run.ttl_s,
        "activeDeadlineSeconds": profile.run.deadline_s,
    }
    platform = {"deploymentSpec": {"executors": pods}, "pipelineConfig": limits}
    ParseDict(platform, copied.platform_spec.platforms["kubernetes"])
    return copied


def step_of(container: Mapping[str, Any]) -> str:
    """Return the step that a container runs: the function's name in KFP's arguments."""
    arguments = list(container["args"])
    return str(arguments[arguments.index("--function_to_execute") + 1])


def _configure(task: PipelineTaskSpec, settings: PodSettings) -> None:
    """Sets the retries of a task; of training also the group and its pods, as constants."""
    if settings.retries:
        retries = {
            "maxRetryCount": settings.retries,
            "backoffFactor": 2.0,
            "backoffDuration": f"{settings.backoff_s}s",
            "backoffMaxDuration": f"{settings.retry_window_s}s",
        }
        ParseDict(retries, task.retry_policy)
    if settings.pod_group:
        group = settings.pod_group.model_copy(update={"queue": settings.queue})
        pod = json.dumps(pod_fragment(settings))
        for name, text in {"group": group.model_dump_json(), "pod": pod}.items():
            task.inputs.parameters[name].runtime_value.constant.string_value = text


def _step_pod(settings: PodSettings) -> Json:
    """The pod of a step; one that only follows a group needs no queue, devices or certain nodes."""
    pod = pod_fragment(settings)
    if settings.pod_group:
        for field in ("nodeSelector", "tolerations", "affinity"):
            pod["spec"].pop(field, None)
        pod["spec"]["containers"][0]["resources"] = _FOLLOWING
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

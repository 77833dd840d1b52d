"""The Kubernetes objects of a pod group; nothing here talks to a cluster."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from components.shared.cluster import Json
from components.shared.config import Record
from components.shared.process import MISTAKE_STATUS
from components.train.exit_codes import PREEMPTED_STATUS
from components.train.group.settings import GroupSettings, Task

TRAINER = "trainer.kubeflow.org/v1alpha1"
LEASE_S = 240  # the pods end so long after the step last renewed their deadline
KEPT_S = 120  # ended pods stay for inspection; with lease and grace less than ten minutes

_CONTAINER = "node"  # the name that Trainer requires for job and container
_PORT = 29500  # torchrun's
_TOKEN_FOR = ("MLFLOW_TRACKING_AUTH", "KFP_MLFLOW_CONFIG")  # MLflow may accept the account's token
# what KFP's driver adds for its MLflow plugin and for proxies (initPodSpecPatch in
# backend/src/v2/driver/driver.go at 2.17.0)
_INJECTED = re.compile(r"(KFP_)?MLFLOW_\w+|(http|https|no)_proxy", re.IGNORECASE)


class PodSource(Record):
    """The pods' settings in Kubernetes' JSON.

    Attributes:
        own: The step's own pod. Only it has the image with its registry, the user that KFP may
            force on all pods, the service account and the variables of KFP's plugins.
        fragment: Metadata and spec of the profile, see `pipelines.placement.pod`.
    """

    own: Mapping[str, Any]
    fragment: Mapping[str, Any]


def group_objects(settings: GroupSettings, task: Task, pods: PodSource, owner: Json) -> list[Json]:
    """Return the objects to create, in this order; their owner is the step's pod."""
    if settings.backend == "job":
        return [job(settings, task, pods, owner)]
    return [training_runtime(settings, task, pods, owner), train_job(settings, task, owner)]


def job_name(settings: GroupSettings, task: Task) -> str:
    """Return the name of the pods' Job; a TrainJob's JobSet creates it under this name."""
    return task.name if settings.backend == "job" else f"{task.name}-{_CONTAINER}-0"


def job(settings: GroupSettings, task: Task, pods: PodSource, owner: Json) -> Json:
    """Return an indexed Job."""
    spec = {
        **_job_spec(settings, task, pods),
        "completions": settings.pods,
        "parallelism": settings.pods,
        "completionMode": "Indexed",
        "ttlSecondsAfterFinished": KEPT_S,
    }
    return _object("batch/v1", "Job", task, owner, spec, settings.queue)


def service(task: Task, owner: Json) -> Json:
    """Return the Service that gives the pods of a Job their DNS names."""
    spec = {
        "clusterIP": "None",
        "selector": {"batch.kubernetes.io/job-name": task.name},
        "publishNotReadyAddresses": True,
    }
    return _object("v1", "Service", task, owner, spec)


def training_runtime(settings: GroupSettings, task: Task, pods: PodSource, owner: Json) -> Json:
    """Return a TrainingRuntime with the whole pod.

    A TrainJob has no field for a pod's volumes, nodes and rules that Trainer 2.0 and 2.3 share
    (`podSpecOverrides` became `runtimePatches`); the runtime's template has all of them. Without
    a `torch` policy, whose fields differ too, Trainer sets the number of pods and nothing else
    (pkg/runtime/framework/plugins/plainml at both).
    """
    template = {
        "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
        "spec": _job_spec(settings, task, pods),
    }
    jobs = {
        "replicatedJobs": [{"name": _CONTAINER, "template": template}],
        "ttlSecondsAfterFinished": KEPT_S,
    }
    spec = {"mlPolicy": {"numNodes": settings.pods}, "template": {"spec": jobs}}
    return _object(TRAINER, "TrainingRuntime", task, owner, spec)


def train_job(settings: GroupSettings, task: Task, owner: Json) -> Json:
    """Return a TrainJob of this runtime."""
    spec = {"runtimeRef": {"kind": "TrainingRuntime", "name": task.name}}
    return _object(TRAINER, "TrainJob", task, owner, spec, settings.queue)


def _object(version: str, kind: str, task: Task, owner: Json, spec: Json, queue: str = "") -> Json:
    labels = _labels(task) | ({"kueue.x-k8s.io/queue-name": queue} if queue else {})
    metadata = {"name": task.name, "labels": labels, "ownerReferences": [owner]}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def _job_spec(settings: GroupSettings, task: Task, pods: PodSource) -> Json:
    return {
        "backoffLimit": settings.failures * settings.pods,
        "activeDeadlineSeconds": LEASE_S,  # renewed while the step follows
        "podReplacementPolicy": "Failed",  # never two pods of one number
        "podFailurePolicy": {"rules": list(_rules())},
        "template": _template(settings, task, pods),
    }


def _rules() -> Sequence[Json]:
    def status(code: int) -> Json:
        return {"containerName": _CONTAINER, "operator": "In", "values": [code]}

    return (
        {"action": "FailJob", "onExitCodes": status(MISTAKE_STATUS)},
        {"action": "Ignore", "onExitCodes": status(PREEMPTED_STATUS)},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    )


def _template(settings: GroupSettings, task: Task, pods: PodSource) -> Json:
    own, container = pods.own["spec"], _container(settings, task, pods)
    spec = {
        **pods.fragment["spec"],
        "restartPolicy": "Never",
        "subdomain": task.name,  # name of the Service, that of a Job or that which JobSet creates
        "serviceAccountName": settings.service_account or own.get("serviceAccountName"),
        "terminationGracePeriodSeconds": settings.grace_s,
        # only MLflow may ask for the token: the pods themselves ask nothing of the cluster
        "automountServiceAccountToken": any(
            each["name"] in _TOKEN_FOR for each in container["env"]
        ),
        "containers": [container],
    }
    metadata = pods.fragment["metadata"]
    labels = {**metadata.get("labels", {}), **_labels(task)}
    return {"metadata": {**metadata, "labels": labels}, "spec": spec}


def _container(settings: GroupSettings, task: Task, pods: PodSource) -> Json:
    main, (given,) = _main(pods.own["spec"]), pods.fragment["spec"]["containers"]
    forced = main.get("securityContext") or {}
    users = {key: forced[key] for key in ("runAsUser", "runAsGroup") if forced.get(key) is not None}
    injected = [each for each in main.get("env", ()) if _INJECTED.fullmatch(each["name"])]
    env = [*injected, *given.get("env", ()), *_place(settings, task)]
    return {
        **given,
        "name": _CONTAINER,
        "image": main["image"],
        # no shell and no torchrun: SIGTERM is for the first process
        "command": ["python", "-m", "components.train.group.worker"],
        "args": [task.model_dump_json()],
        "env": list({each["name"]: each for each in env}.values()),
        "securityContext": {**given["securityContext"], **users, "readOnlyRootFilesystem": True},
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _main(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """The step's container; Argo calls it `main`."""
    containers: Sequence[Mapping[str, Any]] = spec["containers"]
    return next((each for each in containers if each["name"] == "main"), containers[0])


def _place(settings: GroupSettings, task: Task) -> Iterator[Json]:
    """Variables with the run and the pod's place in the group."""
    master = f"{job_name(settings, task)}-0.{task.name}"
    values = {
        "KFP_RUN_ID": task.training.pipeline_run,
        "BRAINSEG_GROUP_PODS": str(settings.pods),
        "BRAINSEG_GROUP_PROCESSES": str(settings.processes),
        "BRAINSEG_GROUP_MASTER": f"{master}:{_PORT}",
        "BRAINSEG_GROUP_GRACE_S": str(settings.grace_s),
    }
    return ({"name": name, "value": value} for name, value in values.items())


def _labels(task: Task) -> Json:
    return {
        "app.kubernetes.io/name": "brainseg",
        "app.kubernetes.io/component": "pod-group",
        "brainseg/training": task.training.digest,
    }

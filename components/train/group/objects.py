"""The objects of a pod group, as Kubernetes takes them; nothing here talks to a cluster."""

from collections.abc import Mapping, Sequence
from typing import Any

from components.shared.cluster import Json
from components.shared.config import Record
from components.shared.process import MISTAKE_STATUS
from components.train.exit_codes import PREEMPTED_STATUS
from components.train.group.settings import SCRATCH_FOLDERS, GroupSettings, Task

TRAINER = "trainer.kubeflow.org/v1alpha1"
LEASE_S = 240  # the pods end so long after the step last said that it is there
KEPT_S = 120  # ended pods, for people; with lease and grace less than ten minutes

_CONTAINER = "node"  # Trainer wants this name, of job and container
_PORT = 29500  # torchrun's
_TOKEN_FOR = ("MLFLOW_TRACKING_AUTH", "KFP_MLFLOW_CONFIG")  # MLflow may take the account's token


class PodSettings(Record):
    """What a group's pod has from elsewhere, in Kubernetes' own form.

    Attributes:
        pod: The step's own, for what KFP passes on to no group: image, user, pull secrets, scratch
            folders.
        task_config: The fields of KFP's `dsl.TaskConfig`: resources, env, volumes and nodes.
    """

    pod: Mapping[str, Any]
    task_config: Mapping[str, Any]


def group_objects(
    settings: GroupSettings, task: Task, pods: PodSettings, owner: Json
) -> list[Json]:
    """The objects to make, in this order; they go when their owner, the step's pod, goes."""
    if settings.backend == "job":
        return [_with(owner, _labelled(settings, task, job(settings, task, pods)))]
    runtime = training_runtime(settings, task, pods)
    return [_with(owner, runtime), _with(owner, _labelled(settings, task, train_job(task)))]


def job_name(settings: GroupSettings, task: Task) -> str:
    """The Job that holds the pods; a TrainJob's JobSet makes it under this name."""
    return task.name if settings.backend == "job" else f"{task.name}-{_CONTAINER}-0"


def job(settings: GroupSettings, task: Task, pods: PodSettings) -> Json:
    """An indexed Job."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": task.name, "labels": _labels(task)},
        "spec": {
            **_job_spec(settings, task, pods),
            "completions": settings.pods,
            "parallelism": settings.pods,
            "completionMode": "Indexed",
            "ttlSecondsAfterFinished": KEPT_S,
        },
    }


def service(task: Task, owner: Json) -> Json:
    """Gives the pods of a Job names by which they find each other."""
    made = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": task.name, "labels": _labels(task)},
        "spec": {
            "clusterIP": "None",
            "selector": {"batch.kubernetes.io/job-name": task.name},
            "publishNotReadyAddresses": True,
        },
    }
    return _with(owner, made)


def training_runtime(settings: GroupSettings, task: Task, pods: PodSettings) -> Json:
    """A TrainingRuntime with the whole pod.

    A TrainJob has no field for a pod's volumes, nodes and rules that Trainer 2.0 and 2.3 share
    (`podSpecOverrides` became `runtimePatches`); the runtime's template has all of them. Without
    a `torch` policy, whose fields differ too, Trainer sets the number of pods and nothing else
    (pkg/runtime/framework/plugins/plainml at both).
    """
    node = {
        "name": _CONTAINER,
        "template": {
            "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
            "spec": _job_spec(settings, task, pods),
        },
    }
    return {
        "apiVersion": TRAINER,
        "kind": "TrainingRuntime",
        "metadata": {"name": task.name, "labels": _labels(task)},
        "spec": {
            "mlPolicy": {"numNodes": settings.pods},
            "template": {
                "spec": {"replicatedJobs": [node], "ttlSecondsAfterFinished": KEPT_S},
            },
        },
    }


def train_job(task: Task) -> Json:
    """A TrainJob of this runtime."""
    return {
        "apiVersion": TRAINER,
        "kind": "TrainJob",
        "metadata": {"name": task.name, "labels": _labels(task)},
        "spec": {"runtimeRef": {"kind": "TrainingRuntime", "name": task.name}},
    }


def _job_spec(settings: GroupSettings, task: Task, pods: PodSettings) -> Json:
    return {
        "backoffLimit": settings.failures * settings.pods,
        "activeDeadlineSeconds": LEASE_S,  # renewed while the step follows
        "podReplacementPolicy": "Failed",  # never two pods of one number
        "podFailurePolicy": {"rules": list(_rules())},
        "template": {
            "metadata": {"labels": _labels(task)},
            "spec": _pod_spec(settings, task, pods),
        },
    }


def _rules() -> Sequence[Json]:
    def status(code: int) -> Json:
        return {"containerName": _CONTAINER, "operator": "In", "values": [code]}

    return (
        {"action": "FailJob", "onExitCodes": status(MISTAKE_STATUS)},
        {"action": "Ignore", "onExitCodes": status(PREEMPTED_STATUS)},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    )


def _pod_spec(settings: GroupSettings, task: Task, pods: PodSettings) -> Json:
    own, config = pods.pod["spec"], pods.task_config
    main = _main(own)
    volumes, mounts = _scratch(own)
    container = {
        "name": _CONTAINER,
        "image": main["image"],
        "imagePullPolicy": main.get("imagePullPolicy"),
        # no shell and no torchrun: SIGTERM is for the first process
        "command": ["python", "-m", "components.train.group.worker"],
        "args": [task.model_dump_json()],
        "env": list(_environment(settings, task, config)),
        "resources": config.get("resources"),
        "securityContext": _restricted(main.get("securityContext") or {}),
        "volumeMounts": [*mounts, *(config.get("volume_mounts") or ())],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    account = settings.service_account or own.get("serviceAccountName")
    by_token = any(each["name"] in _TOKEN_FOR for each in config.get("env") or ())
    spec = {
        "restartPolicy": "Never",
        # of the Service, that of a Job or that which JobSet makes
        "subdomain": task.name,
        "serviceAccountName": account,
        "imagePullSecrets": own.get("imagePullSecrets"),
        "securityContext": own.get("securityContext"),
        "terminationGracePeriodSeconds": settings.grace_s,
        "nodeSelector": config.get("node_selector"),
        "tolerations": config.get("tolerations"),
        "affinity": config.get("affinity"),
        "containers": [_filled(container)],
        "volumes": [*volumes, *(config.get("volumes") or ())],
    }
    # the pods themselves ask nothing of the cluster
    return {**_filled(spec), "automountServiceAccountToken": by_token}


def _main(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """The step's container; Argo calls it `main`."""
    containers: Sequence[Mapping[str, Any]] = spec["containers"]
    return next((each for each in containers if each["name"] == "main"), containers[0])


def _scratch(spec: Mapping[str, Any]) -> tuple[list[Json], list[Json]]:
    """The emptyDirs that a profile gives to a step; KFP and Argo add others for themselves."""
    mounts = [
        each for each in _main(spec).get("volumeMounts", ()) if each["mountPath"] in SCRATCH_FOLDERS
    ]
    names = {each["name"] for each in mounts}
    return [each for each in spec.get("volumes", ()) if each["name"] in names], mounts


def _restricted(own: Mapping[str, Any]) -> Json:
    """What a namespace that enforces "restricted" asks for, with the step's own user."""
    users = {key: own[key] for key in ("runAsUser", "runAsGroup") if own.get(key) is not None}
    return {
        **users,
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _environment(settings: GroupSettings, task: Task, config: Mapping[str, Any]) -> Sequence[Json]:
    """The step's own variables, and the pod's place in the group."""
    passed = [each for each in config.get("env") or () if not _is_of_labels(each)]
    master = f"{job_name(settings, task)}-0.{task.name}"
    own = {
        "KFP_RUN_ID": task.training.pipeline_run,
        "BRAINSEG_GROUP_PODS": str(settings.pods),
        "BRAINSEG_GROUP_PROCESSES": str(settings.processes),
        "BRAINSEG_GROUP_MASTER": f"{master}:{_PORT}",
        "BRAINSEG_GROUP_GRACE_S": str(settings.grace_s),
    }
    kept = [each for each in passed if each["name"] not in own]
    return [*kept, *({"name": name, "value": value} for name, value in own.items())]


def _is_of_labels(variable: Mapping[str, Any]) -> bool:
    """Whether a variable is a label or annotation of the step's pod; the group's have none."""
    field = (variable.get("valueFrom") or {}).get("fieldRef") or {}
    return str(field.get("fieldPath", "")).startswith(("metadata.labels", "metadata.annotations"))


def _labels(task: Task) -> Json:
    return {
        "app.kubernetes.io/name": "brainseg",
        "app.kubernetes.io/component": "pod-group",
        "brainseg/training": task.training.digest,
    }


def _labelled(settings: GroupSettings, task: Task, made: Json) -> Json:
    if settings.queue:
        made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = settings.queue
    return made


def _with(owner: Json, made: Json) -> Json:
    made["metadata"]["ownerReferences"] = [owner]
    return made


def _filled(values: Mapping[str, Any]) -> Json:
    return {key: value for key, value in values.items() if value}

"""Settings of a pod group, and the task of its pods."""

from typing import Literal

from pydantic import Field

from components.shared.config import Config, Record
from components.shared.kubernetes_names import ObjectNameOrNone, QueueNameOrNone
from components.shared.tracking.identity import Training


class GroupSettings(Config):
    """The pods of one training run.

    Image and user are those of the step's own pod; everything else comes from the pod profile.

    Attributes:
        backend: `job`, an indexed Job, which any cluster has; or `trainjob`, a TrainJob of
            Kubeflow Trainer 2.
        pods: Number of pods; a single one is useful on a spot node.
        processes: Processes in each pod, one for each device.
        queue: Kueue's LocalQueue that admits all pods or none; a profile sets that of the step.
        service_account: ServiceAccount of the pods (default: that of the step).
        failures: Allowed failures of all pods, e.g. while MLflow is away; a pod that the cluster
            evicted or preempted has not failed.
        wait_s: Seconds that pods may wait before the step fails.
        grace_s: Seconds from SIGTERM to SIGKILL, to end a step, or to store an epoch.
    """

    backend: Literal["job", "trainjob"] = "job"
    pods: int = Field(default=1, ge=1, le=1024)
    processes: int = Field(default=1, ge=1, le=64)
    queue: QueueNameOrNone = ""
    service_account: ObjectNameOrNone = ""
    failures: int = Field(default=3, ge=0)
    wait_s: int = Field(default=3600, ge=1)
    grace_s: int = Field(default=60, ge=10)


class Task(Record):
    """The task of a group's pods: a training run and its data.

    Attributes:
        store: URI of the store.
        training: Identity of the training run; its digest is the group's name.
        run_name: Name of the pipeline run for people.
    """

    store: str
    training: Training
    run_name: str = ""

    @property
    def name(self) -> str:
        """Name of the group's objects in the cluster, equal in every attempt."""
        return f"brainseg-{self.training.digest}"

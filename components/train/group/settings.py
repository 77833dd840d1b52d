"""How many pods train together, and what they are told to train."""

from typing import Literal

from pydantic import Field

from components.shared.config import Config, Record
from components.shared.kubernetes_names import ObjectNameOrNone, QueueNameOrNone
from components.shared.tracking.identity import Training


class GroupSettings(Config):
    """The pods of one training.

    Image and user are those of the step's own pod; everything else comes from the pod profile.

    Attributes:
        backend: `job`, an indexed Job, which any cluster has; or `trainjob`, a TrainJob of
            Kubeflow Trainer 2.
        pods: As many as train together; one alone is of use on a spot node.
        processes: In each pod, one for each of its devices.
        queue: Kueue's LocalQueue that admits all pods or none; a profile's is that of the step.
        service_account: Of the pods; empty: that of the step.
        failures: How often all pods may fail, e.g. as MLflow is away; a pod that the cluster
            took away has not failed.
        wait_s: Seconds for which some of the pods may be waiting before the step fails.
        grace_s: Seconds from SIGTERM to SIGKILL, to end a step and store the state.
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
    """All that a pod is told: which training, and where its data are.

    Attributes:
        store: URI of the store.
        training: Which training; its digest is the group's name.
        run_name: What people call the pipeline run.
    """

    store: str
    training: Training
    run_name: str = ""

    @property
    def name(self) -> str:
        """Of the group's objects in the cluster: equal in every attempt."""
        return f"brainseg-{self.training.digest}"

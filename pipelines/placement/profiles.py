"""Pod profiles: named settings of all steps' pods."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from kubernetes.utils.quantity import parse_quantity
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)

from components.shared.config import Config, build_config, in_words, nearest
from components.shared.errors import UserError
from components.shared.kubernetes_names import (
    DataKey,
    LabelKey,
    LabelKeyOrNone,
    LabelValue,
    ObjectName,
    QueueNameOrNone,
)
from components.train.group.settings import GroupSettings
from pipelines.catalogue import COMPONENTS
from pipelines.settings import yaml_files

_FOLDER = Path(__file__).parents[1] / "profiles"

# what KFP 2.17.0 (backend/src/v2/compiler/argocompiler/container.go) and Argo mount in every pod
_MOUNTED = (
    *("/tmp", "/cache", "/dev/shm"),  # scratch folders of the profile
    *("/kfp-launcher", "/gcs", "/s3", "/minio", "/.local", "/.cache", "/.config", "/var/run/argo"),
)

EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


def _check_quantity(text: str) -> str:
    """KFP's driver panics at one that it cannot parse (MustParse, backend/src/v2/driver/k8s.go)."""
    if parse_quantity(text) <= 0:
        raise ValueError("must be more than 0")
    return text


Quantity = Annotated[str, BeforeValidator(str), AfterValidator(_check_quantity)]


def _check_folder(text: str) -> str:
    path = PurePosixPath(re.sub("/+", "/", text))  # to Python //tmp is another folder than /tmp
    if not path.is_absolute() or ".." in path.parts or ":" in text:
        raise ValueError("must be an absolute path without .. and :")
    if hidden := [folder for folder in _MOUNTED if PurePosixPath(folder).is_relative_to(path)]:
        raise ValueError(f"{', '.join(hidden)} of the pod is there; give another folder")
    return str(path)


Folder = Annotated[str, AfterValidator(_check_folder)]


class Amount(Config):
    """Request and limit of a resource.

    Attributes:
        request: Amount that the node must have left, e.g. 500m or 4Gi.
        limit: Amount above which the container is throttled (CPU) or killed (memory).
    """

    request: Quantity
    limit: Quantity

    @model_validator(mode="after")
    def _limit_holds_the_request(self) -> Self:
        if parse_quantity(self.request) > parse_quantity(self.limit):
            raise ValueError(f"the request {self.request} is above the limit {self.limit}")
        return self


class Gpu(Config):
    """Whole devices of one kind.

    Attributes:
        type: Resource name of the device plugin, e.g. nvidia.com/mig-1g.10gb.
        count: Number of devices.
    """

    type: str = Field("nvidia.com/gpu", pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")
    count: PositiveInt = 1


class Scratch(Config):
    """Sizes of the writable folders, which are deleted with the pod.

    Attributes:
        tmp: Size of /tmp.
        cache: Size of /cache, for volumes fetched from the store.
        shared_memory: Size of /dev/shm, for loader processes; it counts as memory.
    """

    tmp: Quantity = "2Gi"
    cache: Quantity | None = None
    shared_memory: Quantity | None = None


class Toleration(Config):
    """Permission for tainted nodes, in Kubernetes' own fields."""

    key: LabelKeyOrNone = ""
    operator: Literal["Exists", "Equal"] = "Exists"
    value: LabelValue = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""

    @model_validator(mode="after")
    def _operator_has_what_it_needs(self) -> Self:
        if self.operator == "Exists" and self.value:
            raise ValueError(f"Exists accepts no value, and {self.value!r} is given: use Equal")
        if self.operator == "Equal" and not self.key:
            raise ValueError("Equal needs a key; Exists without one tolerates every taint")
        return self


class NodeRequirement(Config):
    """One condition on a node's labels, in Kubernetes' own fields."""

    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    values: Sequence[LabelValue] = ()

    @model_validator(mode="after")
    def _operator_has_what_it_needs(self) -> Self:
        number = len(self.values)
        if self.operator in ("In", "NotIn") and not number:
            raise ValueError(f"{self.operator} needs values")
        if self.operator in ("Exists", "DoesNotExist") and number:
            raise ValueError(f"{self.operator} accepts no values")
        if self.operator in ("Gt", "Lt") and not (number == 1 and self.values[0].isdecimal()):
            raise ValueError(f"{self.operator} accepts one whole number")
        return self


class NodeAffinity(Config):
    """Nodes that a pod requires or prefers.

    Attributes:
        match: Conditions that must all hold.
        weight: Weight of a preference, 1 to 100; `None` for a requirement.
    """

    match: Sequence[NodeRequirement]
    weight: int | None = Field(None, ge=1, le=100)


class EnvSource(Config):
    """Environment variables from a Secret or a ConfigMap.

    Attributes:
        name: Name of the Secret or ConfigMap.
        env: Variable -> key in it.
        optional: True if pods start without it.
    """

    name: ObjectName
    env: Mapping[EnvName, DataKey]
    optional: bool = False


class Files(Config):
    """A ConfigMap whose keys are mounted as files.

    Attributes:
        name: Name of the ConfigMap.
        path: Folder of the files.
        optional: True if pods start without it.
    """

    name: ObjectName
    path: Folder
    optional: bool = False


class PodSettings(Config):
    """Settings of one step's pods.

    Attributes:
        cpu: CPU cores.
        memory: Memory in bytes.
        gpu: Devices; `None` for a step without any.
        scratch: Writable folders.
        user: User id of the step; 0 is refused, as in "restricted" namespaces.
        group: Group id of the step.
        node_selector: Labels that a node must have.
        tolerations: Tolerated taints of nodes.
        affinity: Required and preferred nodes.
        queue: Kueue's LocalQueue that admits the pods.
        labels: Labels of the pods.
        annotations: Annotations of the pods.
        env: Variables by value, without secrets.
        config: Variables from ConfigMaps.
        secrets: Variables from Secrets.
        files: ConfigMaps as files.
        pull_policy: Kubernetes' policy for pulling the image.
        pull_secrets: Secrets of the registry.
        timeout_s: Time limit of an attempt in seconds.
        retries: Attempts after the first.
        backoff_s: Seconds before the second attempt; doubled each time.
        pod_group: Pods that train together, each with these settings (step train only).
    """

    cpu: Amount
    memory: Amount
    gpu: Gpu | None = None
    scratch: Scratch = Scratch()
    user: PositiveInt = 1000
    group: PositiveInt = 1000
    node_selector: Mapping[LabelKey, LabelValue] = {}
    tolerations: Sequence[Toleration] = ()
    affinity: Sequence[NodeAffinity] = ()
    queue: QueueNameOrNone = ""
    labels: Mapping[LabelKey, LabelValue] = {}
    annotations: Mapping[LabelKey, str] = {}
    env: Mapping[EnvName, str] = {}
    config: Sequence[EnvSource] = ()
    secrets: Sequence[EnvSource] = ()
    files: Sequence[Files] = ()
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    pull_secrets: Sequence[ObjectName] = ()
    timeout_s: PositiveInt
    retries: NonNegativeInt = 0
    backoff_s: PositiveInt = 30
    pod_group: GroupSettings | None = None

    @model_validator(mode="after")
    def _check_settings_together(self) -> Self:
        shared = self.scratch.shared_memory
        if shared and parse_quantity(shared) >= parse_quantity(self.memory.limit):
            raise ValueError(
                f"scratch.shared_memory {shared} counts as memory of the pod; its limit "
                f"{self.memory.limit} must be greater"
            )
        paths = [each.path for each in self.files]
        if twice := sorted({path for path in paths if paths.count(path) > 1}):
            raise ValueError(
                f"files: {', '.join(twice)} is the folder of two ConfigMaps; give each its own"
            )
        if self.gpu and self.pod_group and self.gpu.count != self.pod_group.processes:
            raise ValueError(
                f"pod_group.processes {self.pod_group.processes}, gpu.count {self.gpu.count}: each "
                "process trains on one device, so set them to the same number"
            )
        return self

    @property
    def retry_window_s(self) -> int:
        """Seconds for all attempts with their full time, and a day of waiting.

        Argo counts from the start of the first attempt. It does not retry a failure after this
        time, and it ends an attempt that exceeds it (kubeflow/pipelines#14245).
        """
        waiting_s = int(self.backoff_s * (2**self.retries - 1))
        return (self.retries + 1) * self.timeout_s + waiting_s + 24 * 3600


class RunSettings(Config):
    """Settings of a whole pipeline run.

    Attributes:
        deadline_s: Time limit of the run in seconds.
        ttl_s: Seconds for which the cluster keeps the workflow of an ended run. MLflow, the
            store and KFP's database are not affected.
    """

    deadline_s: PositiveInt
    ttl_s: PositiveInt


class PodProfile(Config):
    """Settings of a run and of every step's pods.

    Attributes:
        run: Settings of the whole run.
        steps: Step -> settings of its pods.
    """

    run: RunSettings
    steps: Mapping[str, PodSettings]

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        others = [step for step in self.steps if step != "train" and self.steps[step].pod_group]
        if others:
            raise ValueError(f"pod_group is a setting of train, not of {', '.join(others)}")
        for step, settings in self.steps.items():
            if settings.timeout_s > self.run.deadline_s:
                raise ValueError(
                    f"{step}.timeout_s {settings.timeout_s} is above run.deadline_s "
                    f"{self.run.deadline_s}, which would end it before"
                )
        return self


def profile_names() -> list[str]:
    """Return the names of the built-in pod profiles."""
    return yaml_files.names(_FOLDER)


def load_profile(name: str) -> PodProfile:
    """Read a pod profile.

    A file has a section for the `run`, one for `all` steps and one for each step with other
    settings. `extends` names the profile whose settings it changes.

    Args:
        name: One of `profile_names()`, or the path of a YAML file.

    Raises:
        UserError: If there is no such profile, or a setting is unknown or out of range.
    """
    content, place, names = _read(name, ()), f"profile {name}", ("run", "all", *COMPONENTS)
    for key in content:
        if key not in names:
            raise UserError(
                f"{place}: {key} is not a section{in_words(nearest(key, names))}"
                f"; there are extends, {', '.join(names)}"
            )
    found = {key: yaml_files.section(content, key, place) for key in names}
    every = found["all"]
    build_config(PodSettings, every, f"{place}: all")  # mistakes in it are reported once
    steps = {
        step: build_config(PodSettings, yaml_files.merged(every, found[step]), f"{place}: {step}")
        for step in COMPONENTS
    }
    return build_config(PodProfile, {"run": found["run"], "steps": steps}, place)


def _read(name: str, seen: tuple[str, ...]) -> dict[str, Any]:
    if name in seen:
        raise UserError(f"profile {' extends '.join([*seen, name])}: this never ends")
    content = dict(yaml_files.read(name, _FOLDER, "pod profile"))
    below = content.pop("extends", None)
    return yaml_files.merged(_read(str(below), (*seen, name)), content) if below else content

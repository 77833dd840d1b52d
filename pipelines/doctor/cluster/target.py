"""What a cluster is asked about: where runs are to go, and with what."""

from dataclasses import dataclass

from components.shared.step import DATA_IMAGE, TRAINER_IMAGE
from components.train.group.settings import GroupSettings
from pipelines.placement.images import Images
from pipelines.placement.profiles import PodProfile


@dataclass(frozen=True)
class Target:
    """A place for runs.

    Attributes:
        profile: Settings of their pods.
        images: Where their images come from.
        store: s3://bucket/prefix; a folder cannot be reached from a cluster.
        namespace: Of their pods.
        service_account: Of their pods.
        endpoint: Of Kubeflow Pipelines; empty for the cluster's own.
    """

    profile: PodProfile
    images: Images
    store: str
    namespace: str = "brainseg"
    service_account: str = "brainseg-run"
    endpoint: str = ""

    @property
    def probes(self) -> dict[str, tuple[str, str]]:
        """Kind of image -> its full name, and a step that runs in it and needs no GPU."""
        return {
            "data": (self.images.full_name(DATA_IMAGE), "ingest"),
            "trainer": (self.images.full_name(TRAINER_IMAGE), "register"),
        }

    @property
    def group(self) -> GroupSettings | None:
        """The pods that train together; none where one pod trains."""
        return self.profile.steps["train"].pod_group

"""The place of runs, and the settings that are checked against it."""

from dataclasses import dataclass

from components.shared.step import DATA_IMAGE, TRAINER_IMAGE
from components.train.group.settings import GroupSettings
from pipelines.placement.images import Images
from pipelines.placement.profiles import PodProfile


@dataclass(frozen=True)
class Target:
    """The place of runs: settings and images of their pods, store, namespace and ServiceAccount.

    `weights` are the sources of those that networks start from.
    """

    profile: PodProfile
    images: Images
    store: str
    namespace: str = "brainseg"
    service_account: str = "brainseg-run"
    endpoint: str = ""
    weights: tuple[str, ...] = ()

    @property
    def shared_store(self) -> str:
        """The store if pods can reach it, or else an empty text."""
        return self.store if self.store.startswith("s3://") else ""

    @property
    def probes(self) -> dict[str, tuple[str, str]]:
        """Kind of image -> its full name, and a step that runs in it and needs no GPU."""
        return {
            "data": (self.images.full_name(DATA_IMAGE), "ingest"),
            "trainer": (self.images.full_name(TRAINER_IMAGE), "register"),
        }

    @property
    def group(self) -> GroupSettings | None:
        """The pods that train together; `None` if one pod trains."""
        return self.profile.steps["train"].pod_group

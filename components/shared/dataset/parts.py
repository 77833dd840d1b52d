"""A data set version divided by a split, as training and scoring read it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from components.shared.dataset.manifest import Manifest, VolumeEntry, read_manifest
from components.shared.dataset.split import Part, Split, read_split
from components.shared.dataset.volumes import Volume, fetch_volume
from components.shared.storage.store import Store, open_store


@dataclass(frozen=True)
class SplitDataset:
    """The volumes of a version, their parts, and the store and local cache of the voxels."""

    store: Store
    cache: Path
    manifest: Manifest
    split: Split

    @classmethod
    def open(
        cls,
        *,
        store: str,
        cache: Path,
        dataset_id: str,
        split_id: str,
        manifest: str | Path,
        split: str | Path,
    ) -> Self:
        """Reads manifest and split from the files of the earlier steps.

        Raises:
            UserError: If they are not of the given ids, or `check_split` refuses the split.
        """
        listed = read_manifest(Path(manifest), dataset_id)
        return cls(open_store(store), cache, listed, read_split(Path(split), split_id, listed))

    def entries(self, part: Part) -> Sequence[VolumeEntry]:
        """The volumes of one part."""
        return self.split.entries(part, self.manifest)

    def volume(self, entry: VolumeEntry) -> Volume:
        """Maps a volume into memory, see `open_volume`.

        Raises:
            UserError: If the store lacks it or its bytes were changed.
        """
        return open_volume(self.manifest, entry, self.store, self.cache)


def open_volume(manifest: Manifest, entry: VolumeEntry, store: Store, cache: Path) -> Volume:
    """Maps a volume into memory, with its label map and the manifest's targets.

    Raises:
        UserError: If the store lacks it or its bytes were changed.
    """
    stored = fetch_volume(store, entry.digest, cache)
    return replace(
        stored,
        channels=manifest.channels,
        geometry=entry.geometry,
        targets=manifest.targets,
    )

"""The interface of layouts: arrangements of volumes' files in a source."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from components.shared.dataset.channels import Channels, Target
from components.shared.dataset.ingest_account import Quarantined
from components.shared.dataset.volumes import Volume
from components.shared.errors import UserError
from components.shared.reading.scans import Listing, Scan, SizeLimits
from components.shared.reading.sources.source import Source
from components.shared.reading.table import TableForm

LABEL = "label"  # key of the label's files in `Scan.parts`; no channel may have this name


class Layout(Protocol):
    """Finds scans in a source and reads them. It can be pickled and used in another process.

    Attributes:
        channels: Channels of all images.
        labels: Names of the label map's values.
        targets: Targets of the data set.
        table: Form of the table with attributes.
        mask_suffix: End of the file names of predicted masks, e.g. `.tif`.
    """

    @property
    def channels(self) -> Channels: ...

    @property
    def labels(self) -> Mapping[str, int]: ...

    @property
    def targets(self) -> tuple[Target, ...]: ...

    @property
    def table(self) -> TableForm: ...

    @property
    def mask_suffix(self) -> str: ...

    def list_scans(self, source: Source) -> Listing:
        """Groups a source's files by volume without reading an image.

        Raises:
            UserError: If the source holds no file, or none that fits.
        """

    def read_scan(self, source: Source, scan: Scan, limits: SizeLimits) -> Volume:
        """Reads a scan and validates all of it; without labels, the mask is empty.

        Raises:
            BadScanError: If anything is wrong.
        """

    def encode_mask(
        self,
        source: Source,
        scan: Scan,
        voxels: npt.NDArray[np.uint8 | np.float32],
        targets: Sequence[str],
    ) -> bytes:
        """Encodes masks (0 and 1) or a probability in the form of a scan's own files.

        A form without place for overlapping targets gets one label map, see `paint_masks`.

        Args:
            source: Source of the scan.
            scan: A scan that was read.
            voxels: uint8 masks or one float32 probability, targets x slices x height x width, as
                `read_scan` orders them.
            targets: Names of the targets.

        Raises:
            BadScanError: If the scan's files have changed.
        """

    def nothing_accepted(self, source_uri: str, quarantined: Sequence[Quarantined]) -> UserError:
        """Returns the error for a source without a valid volume."""

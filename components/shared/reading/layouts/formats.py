"""Formats of images with a position in space; each is a module of `components.shared.reading`."""

import importlib
from collections.abc import Sequence
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from components.shared.reading.axial import AxialImage

Files = Sequence[tuple[str, bytes]]
"""Names and contents of files; a name is shown in messages."""


class ImageFormat(Protocol):
    """Functions of a format's module.

    Attributes:
        MASK_SUFFIX: End of the names of predicted masks.
        IS_SERIES: Whether an image may consist of several files.
    """

    MASK_SUFFIX: str
    IS_SERIES: bool

    def read_image(self, files: Files, max_bytes: int) -> AxialImage:
        """Reads an image, or several of one grid, and turns them to axial LPS.

        Args:
            files: The image's files.
            max_bytes: Limit of its unpacked size.

        Raises:
            BadScanError: If it is damaged, too large, or has no position in space.
        """

    def read_label(self, files: Files, image_files: Files, max_bytes: int) -> AxialImage:
        """Reads a label map and turns it to axial LPS.

        Args:
            files: The label's files.
            image_files: Files of the image that it belongs to.
            max_bytes: Limit of its unpacked size.

        Raises:
            BadScanError: If it is damaged, too large, or has no position in space.
        """

    def encode_mask(
        self, image_files: Files, voxels: npt.NDArray[np.uint8 | np.float32], targets: Sequence[str]
    ) -> bytes:
        """Encodes masks (0 and 1) or a probability on the grid of an image.

        Args:
            image_files: Files of the image.
            voxels: uint8 or float32, targets x slices x height x width, as `read_image` orders
                them.
            targets: Names of the targets.
        """


def image_format(name: str) -> ImageFormat:
    """Imports the module of a format."""
    return cast(ImageFormat, importlib.import_module(f"components.shared.reading.{name}"))

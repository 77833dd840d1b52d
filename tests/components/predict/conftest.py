"""Patients as files, and a model."""

import numpy as np
import pytest
import tifffile


@pytest.fixture
def write_scan():
    """Writes a volume in the layout of the real data set."""

    def write(folder, volume, name="TCGA_CS_0001_19990101", masks=True):
        folder = folder / name
        folder.mkdir(parents=True)
        for number, (image, mask) in enumerate(
            zip(volume.image, volume.mask, strict=True), start=1
        ):
            tifffile.imwrite(folder / f"{name}_{number}.tif", image, photometric="rgb")
            if masks:
                tifffile.imwrite(folder / f"{name}_{number}_mask.tif", mask * np.uint8(255))
        return folder

    return write

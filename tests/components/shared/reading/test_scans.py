import numpy as np
import pytest
import tifffile

from components.shared.reading.scans import BadScanError, list_scans, read_scan
from components.shared.reading.sources.folder import FolderSource

NAME = "TCGA_CS_0001_19990101"
OTHER = "TCGA_DU_0002_19990101"


def listing(folder):
    return list_scans(FolderSource(str(folder), folder))


def read(folder, **options):
    (scan,) = listing(folder).scans
    return read_scan(FolderSource(str(folder), folder), scan, max_file_mib=1, **options)


def test_slices_are_in_the_order_of_their_numbers(tmp_path, write_volume):
    folder = write_volume(tmp_path, NAME, slices=11)
    volume = read(tmp_path)
    for number in range(1, 12):
        image = tifffile.imread(folder / f"{NAME}_{number}.tif")
        mask = tifffile.imread(folder / f"{NAME}_{number}_mask.tif")
        np.testing.assert_array_equal(volume.image[number - 1], image)
        np.testing.assert_array_equal(volume.mask[number - 1], mask // 255)
    assert volume.mask.dtype == np.uint8


def test_unlabelled_volume(tmp_path, write_volume):
    folder = write_volume(tmp_path, NAME)
    labelled = read(tmp_path)
    for path in folder.glob("*_mask.tif"):
        path.unlink()
    volume = read(tmp_path, with_masks=False)
    np.testing.assert_array_equal(volume.image, labelled.image)
    assert volume.mask.shape == volume.image.shape[:3]
    assert not volume.mask.any()
    with pytest.raises(BadScanError, match="missing mask of slice 1, 2, 3"):
        read(tmp_path)


def test_masks_that_are_not_asked_for_are_not_read(tmp_path, write_volume):
    folder = write_volume(tmp_path, NAME)
    (folder / f"{NAME}_2_mask.tif").write_bytes(b"broken")
    assert not read(tmp_path, with_masks=False).mask.any()


def test_every_file_is_listed_once(tmp_path, write_volume):
    write_volume(tmp_path / "a", NAME)
    write_volume(tmp_path / "b", NAME)
    write_volume(tmp_path / "b" / "deep", OTHER)
    write_volume(tmp_path / "b", "somebody")
    for name in ("a/stray.tif", "b/data.csv", f"a/{NAME}/data.csv", "readme.txt", "a/.x/y.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = listing(tmp_path)
    assert [scan.name.volume for scan in found.scans] == [NAME, OTHER]
    assert [len(copy) for copy in found.scans[0].copies] == [6, 6]
    assert [(bad.volume, len(bad.files)) for bad in found.quarantined] == [("somebody", 6)]
    assert found.ignored == {
        "TIFF outside a volume folder": ("a/stray.tif",),
        "hidden or system file": ("a/.x/y.tif",),
        "not a TIFF": (f"a/{NAME}/data.csv", "readme.txt"),
    }
    assert [table.path for table in found.tables] == ["b/data.csv"]
    paths = [
        *(path for scan in found.scans for path in scan.paths),
        *(path for bad in found.quarantined for path in bad.files),
        *(path for ignored in found.ignored.values() for path in ignored),
        *(table.path for table in found.tables),
    ]
    there = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")]
    assert sorted(paths) == sorted(path for path in there if path != "a/.x")
    assert found.files_found == len(paths)

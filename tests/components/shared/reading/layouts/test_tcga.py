"""From files to volumes: how a source can be broken, and what the door says about it."""

import os
import shutil
import struct

import numpy as np
import pytest
import tifffile

from components.shared.errors import UserError
from components.shared.reading.layouts.tcga import list_scans, read_scan
from components.shared.reading.scans import BadScanError, SizeLimits
from components.shared.reading.sources.folder import FolderSource

NAME = "TCGA_CS_0001_19990101"
OTHER = "TCGA_DU_0002_19990101"


def listing(folder):
    return list_scans(FolderSource(str(folder), folder))


def read(folder, name=NAME, **options):
    scan = next(scan for scan in listing(folder).scans if scan.name.volume == name)
    limits = SizeLimits(max_file_mib=options.pop("max_file_mib", 1))
    return read_scan(FolderSource(str(folder), folder), scan, limits, **options)


@pytest.fixture
def source(public_path, write_volume):
    """Two good volumes, of which the test breaks the one called `OTHER`."""
    for name in (NAME, OTHER):
        write_volume(public_path / "kaggle_3m", name)
    return public_path / "kaggle_3m"


def test_slices_are_in_the_order_of_their_numbers(tmp_path, write_volume):
    folder = write_volume(tmp_path, NAME, slices=11)
    volume = read(tmp_path)
    for number in range(1, 12):
        image = tifffile.imread(folder / f"{NAME}_{number}.tif")
        mask = tifffile.imread(folder / f"{NAME}_{number}_mask.tif")
        np.testing.assert_array_equal(volume.image[number - 1], image)
        np.testing.assert_array_equal(volume.mask[number - 1], mask // 255)
    assert volume.mask.dtype == np.uint8


def test_a_volume_may_lack_its_first_slices(tmp_path, write_volume):
    """Where its numbers have no hole: sets without their outermost slices are common."""
    folder = write_volume(tmp_path, NAME, slices=4)
    whole = read(tmp_path)
    for end in ("", "_mask"):
        (folder / f"{NAME}_1{end}.tif").unlink()
    volume = read(tmp_path)
    np.testing.assert_array_equal(volume.image, whole.image[1:])
    np.testing.assert_array_equal(volume.mask, whole.mask[1:])


def test_an_archive_that_lies_deeper_is_named(tmp_path):
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "lgg.zip").touch()
    with pytest.raises(UserError, match=r"but downloads/lgg\.zip; give that \.zip file as the so"):
        listing(tmp_path)


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


def file(top, number, end=""):
    return top / OTHER / f"{OTHER}_{number}{end}.tif"


def rewrite(top, number, end="", change=None, **options):
    path = file(top, number, end)
    pixels = change(tifffile.imread(path))
    tifffile.imwrite(path, pixels, **options)


def truncate(top, size):
    os.truncate(file(top, 2), size)


def corrupt(top, compression):
    rewrite(top, 2, change=lambda pixels: pixels, compression=compression, metadata=None)
    with tifffile.TiffFile(file(top, 2)) as tiff:
        (start,), (size,) = tiff.pages.first.dataoffsets, tiff.pages.first.databytecounts
    damaged = bytearray(file(top, 2).read_bytes())
    damaged[start + size // 2 : start + size - 30] = b"\xa5" * (size - 30 - size // 2)
    file(top, 2).write_bytes(damaged)


def change_tag(top, name, place, letter, value):
    """Changes a part of a tag's entry: its count is at 4, its value at 8."""
    with tifffile.TiffFile(file(top, 2)) as tiff:
        start = tiff.pages.first.tags[name].offset + place
    damaged = bytearray(file(top, 2).read_bytes())
    struct.pack_into(letter, damaged, start, value)
    file(top, 2).write_bytes(damaged)


def rename(top, old, new):
    (top / OTHER / f"{OTHER}_{old}.tif").rename(top / OTHER / new)


def copy_in(top, name):
    shutil.copy(file(top, 1), top / OTHER / name)


def link_out(top):
    outside = top.parent.parent / "outside.tif"
    file(top, 1).rename(outside)
    file(top, 1).symlink_to(outside)


def one_bit(pixels):
    return pixels > 0


def two_values(pixels):
    pixels[0, :3] = (1, 2, 3)
    return pixels


BREAKS = {
    "missing mask": (lambda top: file(top, 2, "_mask").unlink(), "missing mask of slice 2"),
    "missing image": (lambda top: file(top, 3).unlink(), "missing image of slice 3"),
    "gap": (
        lambda top: [file(top, 2, end).unlink() for end in ("", "_mask")],
        "gap in slice numbers: 2 is missing, 3 is there",
    ),
    "numbers from 0": (
        lambda top: [rename(top, f"1{end}", f"{OTHER}_0{end}.tif") for end in ("", "_mask")],
        "slice number 0: numbers start at 1",
    ),
    "duplicate": (
        lambda top: copy_in(top, f"{OTHER}_01.tif"),
        f"two images of slice 1: {OTHER}_01.tif, {OTHER}_1.tif",
    ),
    "truncated TIFF": (lambda top: truncate(top, 600), f"{OTHER}_2.tif: truncated"),
    "LZMA garbage": (
        lambda top: corrupt(top, "lzma"),
        f"{OTHER}_2.tif: damaged: Corrupt input data",
    ),
    "deflate garbage": (
        lambda top: corrupt(top, "zlib"),
        f"{OTHER}_2.tif: damaged: Error -3 while decompressing",
    ),
    "compression that is not read": (
        lambda top: change_tag(top, "Compression", 8, "<H", 50000),
        f"{OTHER}_2.tif: compression ZSTD, expected none",
    ),
    "tag beyond the end": (
        lambda top: change_tag(top, "Software", 4, "<I", 50_000),
        f"{OTHER}_2.tif: damaged: <TiffTag.fromfile> raised TiffFileError('<tifffile.TiffTag 305",
    ),
    "empty TIFF": (lambda top: truncate(top, 0), f"{OTHER}_2.tif: empty file"),
    "not a TIFF": (
        lambda top: file(top, 2).write_bytes(b"\x89PNG\r\n\x1a\n"),
        f"{OTHER}_2.tif: damaged: not a TIFF file",
    ),
    "several pages": (
        lambda top: rewrite(top, 2, change=lambda pixels: np.stack([pixels] * 2)),
        "several pages in one TIFF, expected 1",
    ),
    "wrong dtype": (
        lambda top: rewrite(top, 2, change=lambda pixels: pixels.astype(np.uint16)),
        f"{OTHER}_2.tif: pixels are uint16, expected uint8",
    ),
    "wrong dtype of a mask": (
        lambda top: rewrite(top, 2, "_mask", change=one_bit),
        f"{OTHER}_2_mask.tif: pixels are 1-bit, expected uint8",
    ),
    "wrong channel count": (
        lambda top: rewrite(top, 2, change=lambda pixels: pixels[..., 0]),
        "image is 16 x 16, expected 3 channels",
    ),
    "mask with channels": (
        lambda top: rewrite(top, 2, "_mask", change=lambda mask: np.stack([mask] * 3, axis=-1)),
        "mask is 16 x 16 x 3, expected one channel",
    ),
    "sizes differ within the volume": (
        lambda top: rewrite(top, 2, change=lambda pixels: pixels[1:]),
        f"{OTHER}_2.tif: image is 15 x 16 x 3, the slices before it are 16 x 16 x 3",
    ),
    "sizes differ from the masks": (
        lambda top: [rewrite(top, n, "_mask", change=lambda mask: mask[1:]) for n in (1, 2, 3)],
        "masks are 15 x 16, images are 16 x 16",
    ),
    "mask values": (
        lambda top: rewrite(top, 2, "_mask", change=two_values),
        f"{OTHER}_2_mask.tif: mask values 0, 1, 2, 3, 255; expected 0 and one positive value",
    ),
    "mask values differ between slices": (
        lambda top: rewrite(top, 1, "_mask", change=lambda mask: mask + np.uint8(7)),
        f"{OTHER}_1_mask.tif: mask values 7; expected 0 and one positive value, 255 in this volume",
    ),
    "name disagrees with the folder": (
        lambda top: rename(top, 3, f"{NAME}_3.tif"),
        f"{NAME}_3.tif disagrees with its folder: expected {OTHER}_<n>.tif",
    ),
    "name without number": (
        lambda top: copy_in(top, "scan.tif"),
        "scan.tif disagrees with its folder",
    ),
    "constant image": (
        lambda top: rewrite(top, 2, change=np.zeros_like),
        f"{OTHER}_2.tif: constant image, all pixels are 0",
    ),
    "symlink out of the source": (link_out, f"{OTHER}_1.tif: symbolic link out of the source"),
    "no TIFF in the folder": (
        lambda top: [path.rename(path.with_suffix(".png")) for path in (top / OTHER).iterdir()],
        f"no TIFF in the folder, only e.g. {OTHER}_1.png",
    ),
    "differing copy": (
        lambda top: [
            shutil.copytree(top / OTHER, top / "copy" / OTHER),
            rewrite(top / "copy", 2, change=lambda pixels: pixels + np.uint8(1)),
        ],
        f"its copies differ: {OTHER} and copy/{OTHER}",
    ),
    "copy with another mask": (
        lambda top: [
            shutil.copytree(top / OTHER, top / "copy" / OTHER),
            rewrite(top / "copy", 2, "_mask", change=np.zeros_like),
        ],
        f"its copies differ: {OTHER} and copy/{OTHER}",
    ),
}


@pytest.mark.parametrize("how", BREAKS)
def test_what_is_broken_is_told(source, how):
    damage, reason = BREAKS[how]
    damage(source)
    with pytest.raises(BadScanError) as raised:
        read(source, OTHER)
    assert reason in str(raised.value)
    assert read(source, NAME).image.shape == (3, 16, 16, 3)
    there = {path.relative_to(source).as_posix() for path in source.rglob(f"{OTHER}/*")}
    (scan,) = (scan for scan in listing(source).scans if scan.name.volume == OTHER)
    assert set(scan.paths) == there


def test_too_large_a_file(source):
    with open(file(source, 2), "ab") as stream:
        stream.truncate(2 * 2**20)
    with pytest.raises(BadScanError) as raised:
        read(source, OTHER)
    assert str(raised.value) == f"{OTHER}_2.tif: 2.0 MiB, the limit is max_file_mib=1"


def test_slices_of_a_few_kilobytes_that_declare_gigabytes_together(tmp_path):
    folder = tmp_path / NAME
    folder.mkdir()
    image = np.zeros((4000, 5000, 3), np.uint8)
    image[0, 0] = 1
    for number in range(1, 9):
        path = folder / f"{NAME}_{number}.tif"
        tifffile.imwrite(path, image, photometric="rgb", compression="zlib")
    with pytest.raises(BadScanError, match="take 610 MiB, the limit of a volume is 400"):
        read(tmp_path, max_file_mib=64, with_masks=False)


def test_unreadable_file(source, without_root):
    file(source, 2, "_mask").chmod(0)
    with without_root(), pytest.raises(BadScanError) as raised:
        read(source, OTHER)
    assert str(raised.value) == f"{OTHER}_2_mask.tif: cannot be read: Permission denied"


def test_unlistable_folder(source, without_root):
    (source / OTHER).chmod(0)
    with without_root(), pytest.raises(BadScanError, match="cannot be listed: Permission denied"):
        read(source, OTHER)


def test_folder_with_another_name_is_quarantined(source):
    (source / OTHER).rename(source / "patient 2")
    (bad,) = listing(source).quarantined
    assert bad.volume == "patient 2"
    assert bad.reason == "the folder's name is not TCGA_<site>_<patient>_<yyyymmdd>"
    assert len(bad.files) == 6


def test_other_files_are_ignored_by_rule(source):
    for name in ("README.md", "stray.tif", ".DS_Store", "data.csv", f"{NAME}/._{NAME}_1.tif"):
        (source / name).touch()
    (source / NAME / "Thumbs.db").touch()
    (source / NAME / "notes.txt").touch()
    (source / "__MACOSX").mkdir()
    (source / "__MACOSX" / "x.tif").touch()
    (source / "link").symlink_to(source)
    found = listing(source)
    assert {rule: len(paths) for rule, paths in found.ignored.items()} == {
        "TIFF outside a volume folder": 1,
        "hidden or system file": 4,
        "not a TIFF": 2,
        "symbolic link to a folder": 1,
    }
    assert [table.path for table in found.tables] == ["data.csv"]
    assert len(found.scans) == 2


def test_empty_source(tmp_path):
    with pytest.raises(UserError, match=r"is empty; the expected form is .*TCGA_<site>"):
        listing(tmp_path)


@pytest.mark.parametrize(("depth", "volumes"), [(OTHER, 1), (".", 2), ("..", 2)])
def test_the_layout_may_start_at_any_depth(source, depth, volumes):
    assert len(listing((source / depth).resolve()).scans) == volumes

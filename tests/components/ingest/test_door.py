"""Every bad input of the door: how to break a source, and what ingest says about it."""

import os
import shutil
import zipfile

import numpy as np
import pytest
import tifffile

from components.ingest.ingestion import ingest_source
from components.ingest.settings import IngestSettings
from components.shared.errors import UserError
from components.shared.storage.store import open_store

GOOD = ("TCGA_CS_0001_19990101", "TCGA_FG_0003_19990101")
BAD = "TCGA_DU_0002_19990101"


@pytest.fixture
def source(public_path, write_volume):
    """Three good volumes, of which the test breaks the one called `BAD`."""
    top = public_path / "source" / "kaggle_3m"
    for name in (*GOOD, BAD):
        write_volume(top, name)
    (top / "data.csv").write_text("Patient,gender\nTCGA_CS_0001,1\n")
    return top


@pytest.fixture
def run(public_path):
    """Ingests in this process and checks that every file is accounted for."""
    public_path.chmod(0o777)
    mask = os.umask(0)  # the store may be written without root, too

    def run(uri, **settings):
        result = ingest_source(
            str(uri), open_store(str(public_path / "store")), IngestSettings(**settings), 1
        )
        report = result.report
        assert report.files_found == (
            report.files_accepted
            + sum(len(bad.files) for bad in report.quarantined)
            + sum(report.ignored.values())
        )
        return report

    yield run
    os.umask(mask)


def file(top, number, end=""):
    return top / BAD / f"{BAD}_{number}{end}.tif"


def rewrite(top, number, end="", change=None, **options):
    path = file(top, number, end)
    pixels = change(tifffile.imread(path))
    tifffile.imwrite(path, pixels, **options)


def truncate(top, size):
    os.truncate(file(top, 2), size)


def rename(top, old, new):
    (top / BAD / f"{BAD}_{old}.tif").rename(top / BAD / new)


def copy_in(top, name):
    shutil.copy(file(top, 1), top / BAD / name)


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
        lambda top: [rename(top, f"1{end}", f"{BAD}_0{end}.tif") for end in ("", "_mask")],
        "slice number 0: numbers start at 1",
    ),
    "duplicate": (
        lambda top: copy_in(top, f"{BAD}_01.tif"),
        f"two images of slice 1: {BAD}_01.tif, {BAD}_1.tif",
    ),
    "truncated TIFF": (lambda top: truncate(top, 600), f"{BAD}_2.tif: truncated"),
    "empty TIFF": (lambda top: truncate(top, 0), f"{BAD}_2.tif: empty file"),
    "not a TIFF": (
        lambda top: file(top, 2).write_bytes(b"\x89PNG\r\n\x1a\n"),
        f"{BAD}_2.tif: not a TIFF",
    ),
    "several pages": (
        lambda top: rewrite(top, 2, change=lambda pixels: np.stack([pixels] * 2)),
        "2 pages in one TIFF, expected 1",
    ),
    "wrong dtype": (
        lambda top: rewrite(top, 2, change=lambda pixels: pixels.astype(np.uint16)),
        f"{BAD}_2.tif: image is uint16, expected uint8",
    ),
    "wrong dtype of a mask": (
        lambda top: rewrite(top, 2, "_mask", change=one_bit),
        "mask is bool, expected uint8",
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
        f"{BAD}_2.tif: image is 15 x 16 x 3, the slices before it are 16 x 16 x 3",
    ),
    "sizes differ from the masks": (
        lambda top: [rewrite(top, n, "_mask", change=lambda mask: mask[1:]) for n in (1, 2, 3)],
        "masks are 15 x 16, images are 16 x 16",
    ),
    "mask values": (
        lambda top: rewrite(top, 2, "_mask", change=two_values),
        f"{BAD}_2_mask.tif: mask values 0, 1, 2, 3, 255; expected 0 and one positive value",
    ),
    "mask values differ between slices": (
        lambda top: rewrite(top, 1, "_mask", change=lambda mask: mask + np.uint8(7)),
        f"{BAD}_1_mask.tif: mask values 7; expected 0 and one positive value, 255 in this volume",
    ),
    "name disagrees with the folder": (
        lambda top: rename(top, 3, f"{GOOD[0]}_3.tif"),
        f"{GOOD[0]}_3.tif disagrees with its folder: expected {BAD}_<n>.tif",
    ),
    "name without number": (
        lambda top: copy_in(top, "scan.tif"),
        "scan.tif disagrees with its folder",
    ),
    "constant image": (
        lambda top: rewrite(top, 2, change=np.zeros_like),
        f"{BAD}_2.tif: constant image, all pixels are 0",
    ),
    "symlink out of the source": (link_out, f"{BAD}_1.tif: symbolic link out of the source"),
    "no TIFF in the folder": (
        lambda top: [path.rename(path.with_suffix(".png")) for path in (top / BAD).iterdir()],
        f"no TIFF in the folder, only e.g. {BAD}_1.png",
    ),
    "differing copy": (
        lambda top: [
            shutil.copytree(top / BAD, top / "copy" / BAD),
            rewrite(top / "copy", 2, change=lambda pixels: pixels + np.uint8(1)),
        ],
        f"its copies differ: {BAD} and copy/{BAD}",
    ),
    "copy with another mask": (
        lambda top: [
            shutil.copytree(top / BAD, top / "copy" / BAD),
            rewrite(top / "copy", 2, "_mask", change=np.zeros_like),
        ],
        f"its copies differ: {BAD} and copy/{BAD}",
    ),
}


@pytest.mark.parametrize("how", BREAKS)
def test_bad_volume_is_quarantined_and_the_others_go_on(source, run, caplog, how):
    damage, reason = BREAKS[how]
    damage(source)
    there = {path.relative_to(source).as_posix() for path in source.rglob(f"{BAD}/*")}
    report = run(source)
    assert report.volumes == len(GOOD)
    (bad,) = report.quarantined
    assert bad.volume == BAD
    assert reason in bad.reason
    assert set(bad.files) == there
    assert f"quarantined {BAD}: {bad.reason}" in caplog.text
    with pytest.raises(UserError, match="ingest is strict and 1 of the volumes are bad") as raised:
        run(source, strict=True)
    assert f"{BAD}: {bad.reason}" in str(raised.value)


def test_too_large_a_file(source, run):
    with open(file(source, 2), "ab") as stream:
        stream.truncate(2 * 2**20)
    (bad,) = run(source, max_file_mib=1).quarantined
    assert bad.reason == f"{BAD}_2.tif: 2.0 MiB, the limit is max_file_mib=1"


def test_unreadable_file(source, run, without_root):
    file(source, 2, "_mask").chmod(0)
    with without_root():
        (bad,) = run(source).quarantined
    assert bad.volume == BAD
    assert bad.reason == f"{BAD}_2_mask.tif: cannot be read: Permission denied"


def test_unlistable_folder(source, run, without_root):
    (source / BAD).chmod(0)
    with without_root():
        (bad,) = run(source).quarantined
    assert (bad.volume, bad.files) == (BAD, (f"{BAD}/*",))
    assert "cannot be listed: Permission denied" in bad.reason


def test_one_patient_in_two_folders(source, run, write_volume):
    write_volume(source, "TCGA_DU_0002_20000202")
    report = run(source)
    assert [bad.volume for bad in report.quarantined] == [BAD, "TCGA_DU_0002_20000202"]
    assert {bad.reason for bad in report.quarantined} == {
        f"patient TCGA_DU_0002 is in 2 folders: {BAD}, TCGA_DU_0002_20000202"
    }


def test_same_pixels_under_two_patients(source, run):
    other = "TCGA_HT_0009_19990101"
    shutil.copytree(source / BAD, source / other)
    for path in (source / other).iterdir():
        path.rename(path.with_name(path.name.replace(BAD, other)))
    rewrite_mask = source / other / f"{other}_2_mask.tif"
    tifffile.imwrite(rewrite_mask, np.zeros((16, 16), np.uint8))  # another mask is no excuse
    report = run(source)
    assert [bad.volume for bad in report.quarantined] == [BAD, other]
    assert report.quarantined[0].reason == (
        f"the same pixels are under two patients: {BAD}, {other}"
    )


def test_folder_with_another_name_is_quarantined(source, run):
    (source / BAD).rename(source / "patient 2")
    (bad,) = run(source).quarantined
    assert bad.volume == "patient 2"
    assert bad.reason == "the folder's name is not TCGA_<site>_<patient>_<yyyymmdd>"
    assert len(bad.files) == 6


def test_identical_copy_is_ignored_and_told(source, run, caplog):
    caplog.set_level("INFO")
    alone = run(source)
    copy = source.parent / "lgg-mri-segmentation" / "kaggle_3m"
    shutil.copytree(source, copy)
    path = copy / BAD / f"{BAD}_1.tif"
    tifffile.imwrite(path, tifffile.imread(path), compression="zlib")  # other bytes, same voxels
    report = run(source.parent)
    assert report.dataset_id == alone.dataset_id
    assert report.quarantined == ()
    assert report.ignored == {"data.csv: read as attributes": 1, "identical copy": 19}
    assert "ignored, identical copy: 19" in caplog.text


def test_other_files_are_ignored_by_rule(source, run, caplog):
    caplog.set_level("INFO")
    (source / "README.md").touch()
    (source / "stray.tif").touch()
    (source / ".DS_Store").touch()
    (source / GOOD[0] / f"._{GOOD[0]}_1.tif").touch()
    (source / GOOD[0] / "Thumbs.db").touch()
    (source / GOOD[0] / "notes.txt").touch()
    (source / "__MACOSX").mkdir()
    (source / "__MACOSX" / "x.tif").touch()
    (source / "link").symlink_to(source)
    report = run(source)
    assert report.volumes == 3
    assert report.ignored == {
        "TIFF outside a volume folder": 1,
        "data.csv: read as attributes": 1,
        "hidden or system file": 4,
        "not a TIFF": 2,
        "symbolic link to a folder": 1,
    }
    assert (
        "27 files found = 18 in 3 accepted volumes + 0 in 0 quarantined volumes + 9 ignored"
        in caplog.text
    )


def test_wrong_checksum_in_an_archive(source, run):
    path = source.parent / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for each in sorted(source.rglob("*.tif")):
            archive.write(each, each.relative_to(source.parent))
        start = archive.getinfo(f"kaggle_3m/{BAD}/{BAD}_2.tif").header_offset
    data = bytearray(path.read_bytes())
    data[start + 400] ^= 1  # somewhere in the pixels
    path.write_bytes(data)
    report = run(path)
    (bad,) = report.quarantined
    assert bad.volume == BAD
    assert "the archive is damaged here: Bad CRC-32" in bad.reason
    assert report.volumes == len(GOOD)


def test_empty_source(tmp_path, run):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty is empty; the expected form is .*TCGA_<site>"):
        run(tmp_path / "empty")


def test_nothing_accepted_shows_the_expected_form(source, run):
    for name in (*GOOD, BAD):
        (source / name).rename(source / name.replace("TCGA", "patient"))
    with pytest.raises(UserError) as raised:
        run(source)
    assert "holds no usable volume: 3 refused (patient_CS_0001_19990101: the folder's name" in str(
        raised.value
    )
    assert "e.g. kaggle_3m/TCGA_CS_4941_19960909/TCGA_CS_4941_19960909_1_mask.tif" in str(
        raised.value
    )


def test_source_without_tiff(tmp_path, run):
    (tmp_path / "a.nii").touch()
    with pytest.raises(UserError, match="no folder of TIFF files; the expected form"):
        run(tmp_path)


@pytest.mark.parametrize("depth", ["volume", "kaggle_3m", "parent"])
def test_the_layout_may_start_at_any_depth(source, run, depth):
    uri = {"volume": source / BAD, "kaggle_3m": source, "parent": source.parent}[depth]
    assert run(uri).volumes == (1 if depth == "volume" else 3)

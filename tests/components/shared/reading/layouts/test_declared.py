"""Declared layouts: which file becomes what, and which case is refused with which sentence."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from components.shared.errors import UserError
from components.shared.reading.layouts.opening import open_layout
from components.shared.reading.layouts.settings import LayoutSettings
from components.shared.reading.layouts.tcga import TcgaLayout
from components.shared.reading.scans import BadScanError, SizeLimits, hashed_name
from components.shared.reading.sources.folder import FolderSource
from components.shared.reading.sources.opening import open_source
from components.shared.reading.sources.synthetic import write_synthetic
from tests.components.shared.reading.layouts.declaring import DECLARED, settings

AFFINE = np.diag([-2.0, -2.0, 5.0, 1])  # LPS, as the arrays of a volume


def source_of(folder):
    return FolderSource(str(folder), folder)


def listed(folder, with_labels=True, **changes):
    source = source_of(folder)
    return open_layout(settings(**changes), source, with_labels).list_scans(source)


def read(folder, case="A", with_labels=True, limits=None, **changes):
    source = source_of(folder)
    layout = open_layout(settings(**changes), source, with_labels)
    (scan,) = (scan for scan in layout.list_scans(source).scans if scan.name.volume == case)
    return layout.read_scan(source, scan, limits or SizeLimits())


def image(seed=0, dtype=np.int16, background=0):
    """A head of noise in a constant background."""
    voxels = np.full((12, 10, 4), background, dtype)
    noise = np.random.default_rng(seed).integers(100, 2000, (8, 6, 4))
    voxels[2:10, 2:8] = noise.astype(dtype)
    return voxels


def label(*values, dtype=np.uint8):
    voxels = np.zeros((12, 10, 4), dtype)
    for place, value in enumerate(values):
        voxels[4 + place, 4, 1] = value
    return voxels


def write(path, voxels, affine=AFFINE, slope=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    file = nib.Nifti1Image(voxels, affine, dtype=voxels.dtype)
    if slope != 1:
        file.header.set_slope_inter(slope, 0)
    path.write_bytes(gzip.compress(file.to_bytes(), 1))


@pytest.fixture
def case(tmp_path):
    write(tmp_path / "A" / "t1.nii.gz", image(1))
    write(tmp_path / "A" / "flair.nii.gz", image(2))
    write(tmp_path / "A" / "seg.nii.gz", label(1, 2, 2))
    return tmp_path


def test_a_case_is_read_with_its_channels_labels_and_place(case):
    volume = read(case)
    assert (volume.channels.names, volume.channels.reference) == (("T1", "FLAIR"), "FLAIR")
    assert (volume.image.dtype, volume.channels.dtype) == (np.int16, "float32")
    for channel, seed in enumerate((1, 2)):
        np.testing.assert_array_equal(volume.image[..., channel], image(seed).transpose(2, 1, 0))
    np.testing.assert_array_equal(volume.mask, label(1, 2, 2).transpose(2, 1, 0))
    assert volume.geometry.spacing_mm == (5, 2, 2)
    assert not read(case, with_labels=False).mask.any()


@pytest.mark.parametrize(
    ("dtype", "scale", "stored"),
    [
        (np.uint8, 1, np.int16),
        (np.uint16, 1, np.int16),
        (np.uint16, 300, np.float32),
        (np.int32, 1, np.int16),
        (np.float64, 1, np.float32),
        (np.int64, 2**40, np.float32),
    ],
)
def test_integers_that_fit_are_int16_and_all_else_is_float32(case, dtype, scale, stored):
    voxels = (image() % 200).astype(dtype) * dtype(scale)
    write(case / "A" / "flair.nii.gz", voxels)
    volume = read(case)
    assert volume.image.dtype == stored
    np.testing.assert_array_equal(volume.image[..., 1], voxels.transpose(2, 1, 0).astype(stored))


def test_scaled_values_are_unpacked(case):
    write(case / "A" / "flair.nii.gz", image(2), slope=0.25)
    np.testing.assert_array_equal(read(case).image[..., 1], image(2).transpose(2, 1, 0) * 0.25)


def test_a_missing_optional_channel_is_a_copy_of_the_reference(case):
    write(case / "B" / "flair.nii.gz", image(3))
    write(case / "B" / "seg.nii.gz", label(1))
    volume = read(case, "B", optional=("T1",))
    np.testing.assert_array_equal(volume.image[..., 0], volume.image[..., 1])


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (label(1, 0.9999999702, dtype=np.float64), [0, 1]),
        (label(2, dtype=np.float32), [0, 2]),
        (label(2, 1, dtype=np.int64), [0, 1, 2]),
    ],
)
def test_labels_of_any_type_are_read(case, labels, found):
    write(case / "A" / "seg.nii.gz", labels)
    assert np.unique(read(case).mask).tolist() == found


def moved(mm):
    affine = AFFINE.copy()
    affine[1, 3] += mm
    return affine


TRAPS = {
    "T1: it is no NIfTI file": ("t1", b"hello"),
    "T1 is constant, all voxels are 3": ("t1", np.full((12, 10, 4), 3, np.int16)),
    "T1 has voxels that are NaN": ("t1", np.where(image() > 1000, np.nan, image(dtype=np.float32))),
    "T1 has voxels that are NaN or infinite": ("t1", image(dtype=np.float64) * 1e300),
    "T1 has its background at 0 in a range from -995": (
        "t1",
        np.where(image() > 0, image() - np.int16(1100), image()),
    ),
    "T1 has 11 x 10 x 4 voxels".replace("11 x 10 x 4", "4 x 10 x 11"): ("t1", image()[1:]),
    "T1 lies on another grid than FLAIR: their corners are up to 0.58 mm": (
        "t1",
        image(),
        moved(0.58),
    ),
    "label lies on another grid than FLAIR: their corners are up to 534 mm": (
        "seg",
        label(1),
        moved(534),
    ),
    "label has the undeclared value 4; declared are core=1, edema=2": ("seg", label(1, 4)),
    "label has the undeclared value -1, 300;": ("seg", label(-1, 300, dtype=np.int16)),
    "label has values that are not whole, e.g. 14.2": ("seg", label(14.2, dtype=np.float32)),
}


@pytest.mark.parametrize(("reason", "change"), TRAPS.items())
def test_what_is_refused_has_a_reason(case, reason, change):
    name, content, *affine = change
    path = case / "A" / f"{name}.nii.gz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write(path, content, *affine)
    with pytest.raises(BadScanError) as refused:
        read(case)
    assert str(refused.value).startswith(reason)


def test_small_values_below_the_background_are_accepted(case):
    """Interpolation leaves some; z-scores whose background is the lowest value are fine, too."""
    voxels = image(dtype=np.float32)
    voxels[3, 3, 0] = -20
    write(case / "A" / "t1.nii.gz", voxels)
    write(case / "A" / "flair.nii.gz", image(background=-3, dtype=np.float32) / 700)
    assert read(case).image.dtype == np.float32


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (SizeLimits(max_file_mib=0.0001), "T1: a file of .* the limit is max_file_mib=0.0001"),
        (SizeLimits(max_volume_mib=0.0005), "T1: its header declares .* max_volume_mib=0.0004997"),
        (SizeLimits(max_volume_mib=0.003), "2 channels take 0 MiB, the limit of a volume is"),
    ],
)
def test_sizes_are_limited(case, limits, reason):
    with pytest.raises(BadScanError, match=reason):
        read(case, limits=limits)


def test_every_file_is_listed_once(case):
    write(case / "B" / "flair.nii.gz", image(3))
    write(case / "B" / "t1.nii.gz", image(4))
    write(case / "C" / "deep" / "flair.nii.gz", image(4))
    for name in ("readme.txt", ".DS_Store", "A/t2.nii.gz"):
        (case / name).touch()
    found = listed(case)
    assert [scan.name.volume for scan in found.scans] == ["A"]
    assert [(bad.volume, bad.reason) for bad in found.quarantined] == [
        ("B", "label is missing, expected B/seg.nii.gz")
    ]
    assert found.ignored == {
        "hidden or system file": (".DS_Store",),
        "no path of the layout": ("A/t2.nii.gz", "C/deep/flair.nii.gz", "readme.txt"),
    }
    assert found.files_found == 3 + 2 + 4
    unlabelled = listed(case, with_labels=False)
    assert [scan.name.volume for scan in unlabelled.scans] == ["A", "B"]
    assert unlabelled.ignored["label, not read"] == ("A/seg.nii.gz",)


def test_a_channel_that_is_there_twice(case):
    write(case / "A" / "flair_2.nii.gz", image(2))
    channels = {**DECLARED["channels"], "FLAIR": "{case}/flair*.nii.gz"}
    (bad,) = listed(case, channels=channels).quarantined
    assert bad.reason == "FLAIR is there 2 times: A/flair.nii.gz, A/flair_2.nii.gz"


def test_names_dates_and_sites_come_from_paths_and_table(tmp_path):
    for name in ("P1-20010203", "P1-20020203", "P2-20010203"):
        for part in ("t1", "flair", "seg"):
            write(tmp_path / name / f"{part}.nii.gz", image())
    (tmp_path / "people.tsv").write_text("id\tcenter\tage\nP1\tLyon\t40\nP2\tn/a\t\n")
    named = {
        "patient": "(?P<patient>P[0-9]+)-(?P<day>[0-9]+)",
        "table": "people.tsv",
        "site": "center",
        "date": "day",
    }
    found = [scan.name for scan in listed(tmp_path, **named).scans]
    assert [(name.patient, name.site, name.date) for name in found] == [
        ("P1", "Lyon", "20010203"),
        ("P1", "Lyon", "20020203"),
        ("P2", "n/a", "20010203"),
    ]
    (bad, *_) = listed(tmp_path, **{**named, "date": "patient"}).quarantined
    assert bad.reason == "its date 'P1' is not yyyymmdd or yyyy-mm-dd"
    hidden = listed(tmp_path, **named, hash_patients=True)
    assert {scan.name.patient for scan in hidden.scans} == {hashed_name("P1"), hashed_name("P2")}
    assert {scan.name.site for scan in hidden.scans} == {"Lyon", "n/a"}
    assert not any("P1" in scan.name.volume for scan in hidden.scans)


def test_hashed_names_are_in_no_reason(case):
    (case / "A" / "seg.nii.gz").unlink()
    (bad,) = listed(case, hash_patients=True).quarantined
    assert (bad.volume, bad.reason) == (hashed_name("A"), "label is missing")
    assert bad.files == (hashed_name("A/flair.nii.gz"), hashed_name("A/t1.nii.gz"))


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({}, "x/y/A/flair.nii.gz fits below a folder: give that folder, or begin the paths with"),
        ({"channels": {"FLAIR": "{case}_flair.nii"}}, "expected e.g. {case}_flair.nii; the near"),
    ],
)
def test_a_source_that_does_not_fit_gets_a_hint(tmp_path, changes, hint):
    write(tmp_path / "x" / "y" / "A" / "flair.nii.gz", image())
    (tmp_path / "z").touch()
    with pytest.raises(UserError, match="holds no file of the layout") as refused:
        listed(tmp_path, **changes)
    assert hint in str(refused.value)


def test_a_channel_of_no_case_is_an_error(case):
    channels = {**DECLARED["channels"], "T2": "{case}/t2.nii.gz"}
    with pytest.raises(
        UserError, match=r"holds no file for channel T2: .case./t2\.nii\.gz; correct"
    ):
        listed(case, channels=channels, optional=("T2",))


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    top = write_synthetic(tmp_path_factory.mktemp("synthetic"), patients=3, seed=0)
    layout, source = TcgaLayout(), FolderSource("", top)
    scans = sorted(layout.list_scans(source).scans, key=lambda scan: scan.name.patient[-4:])
    return [layout.read_scan(source, scan, SizeLimits()) for scan in scans]


class TestPrefilled:
    """The synthetic patients in each layout are those of the TIFF files, turned."""

    @pytest.mark.parametrize(
        ("form", "names", "count"),
        [
            ("nnunet", ("T1", "T1c", "T2", "FLAIR"), 3),
            ("msd", ("T1", "T1c", "T2", "FLAIR"), 3),
            ("bids", ("T1w", "T2w", "FLAIR"), 4),
            ("brats", ("T1", "T1c", "T2", "FLAIR"), 4),
        ],
    )
    def test_each_layout(self, expected, form, names, count):
        with open_source(f"synthetic:3,as={form}") as source:
            layout = open_layout(LayoutSettings(name=form), source)
            listing = layout.list_scans(source)
            assert layout.channels.names == names
            assert (len(listing.scans), listing.quarantined) == (count, ())
            assert len({scan.name.patient for scan in listing.scans}) == 3
            firsts = {scan.name.patient: scan for scan in reversed(listing.scans)}
            volumes = [
                layout.read_scan(source, scan, SizeLimits()) for scan in reversed(firsts.values())
            ]
        for volume, wanted in zip(volumes, expected, strict=True):
            np.testing.assert_array_equal(volume.reference, wanted.reference * np.int16(8))
            np.testing.assert_array_equal(volume.image[..., 0], wanted.image[..., 0] * np.int16(8))
            np.testing.assert_array_equal(volume.mask > 0, wanted.mask > 0)
            np.testing.assert_allclose(volume.geometry.spacing_mm, (6, 2.5, 2))

    def test_a_file_of_several_channels_is_read_once(self, monkeypatch):
        with open_source("synthetic:1,as=msd") as source:
            layout = open_layout(LayoutSettings(name="msd"), source)
            (scan,) = layout.list_scans(source).scans
            paths, read = [], type(source).read
            monkeypatch.setattr(
                type(source), "read", lambda self, path: paths.append(path) or read(self, path)
            )
            layout.read_scan(source, scan, SizeLimits())
        assert sorted(paths) == ["imagesTr/syn_001.nii.gz", "labelsTr/syn_001.nii.gz"]

    def test_new_images_of_nnunet_may_lie_in_any_folder(self):
        with open_source("synthetic:2,as=nnunet") as source:
            layout = open_layout(LayoutSettings(name="nnunet"), source, with_labels=False)
            assert len(layout.list_scans(source).scans) == 2

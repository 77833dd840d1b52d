import csv
import hashlib

import numpy as np
import pytest
import tifffile

from components.shared.reading.sources.synthetic import write_synthetic
from components.shared.reading.tcga import ATTRIBUTES, parse_scan_name


def read(folder):
    slices = range(1, len(list(folder.glob("*_mask.tif"))) + 1)
    return tuple(
        np.stack([tifffile.imread(folder / f"{folder.name}_{n}{end}.tif") for n in slices])
        for end in ("", "_mask")
    )


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def test_voxels_are_the_same_on_every_machine(tmp_path):
    top = write_synthetic(tmp_path, patients=2, seed=7)
    hasher = hashlib.sha256((top / "data.csv").read_bytes())
    for folder in sorted(top.glob("TCGA_*")):
        hasher.update(folder.name.encode())
        for voxels in read(folder):
            hasher.update(voxels)
    assert hasher.hexdigest()[:16] == "8b0586ce7d0ad459"


def test_patients_keep_their_voxels_when_more_are_made(tmp_path, synthetic_folder):
    for folder in ("few", "others"):
        (tmp_path / folder).mkdir()
    few = write_synthetic(tmp_path / "few", patients=2, seed=0)
    others = write_synthetic(tmp_path / "others", patients=2, seed=1)
    for folder in few.glob("TCGA_*"):
        for file in folder.iterdir():
            assert file.read_bytes() == (synthetic_folder / folder.name / file.name).read_bytes()
    assert {path.name[:12] for path in few.glob("TCGA_*")} == {
        path.name[:12] for path in others.glob("TCGA_*")
    }
    assert not {path.name for path in few.glob("TCGA_*")} & {
        path.name for path in others.glob("TCGA_*")
    }


def test_layout_is_that_of_the_real_data(synthetic_folder):
    names = [parse_scan_name(path.name) for path in sorted(synthetic_folder.glob("TCGA_*"))]
    assert {name.site for name in names} == {"CS", "DU", "FG", "HT"}
    with open(synthetic_folder / "data.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["Patient"] for row in rows] == [
        name.patient for name in sorted(names, key=lambda name: name.patient[-4:])
    ]
    assert set(rows[0]) == {"Patient", *ATTRIBUTES}
    assert any(row[column] == "" for row in rows for column in ATTRIBUTES)


def test_tumours_are_bright_on_flair_but_not_alone_so(synthetic_folder):
    shares, thresholds = [], []
    for folder in synthetic_folder.glob("TCGA_*"):
        image, mask = read(folder)
        assert image.shape[1:] == (96, 96, 3)
        assert 12 <= len(image) <= 20
        assert set(np.unique(mask)) == {0, 255}
        flair, tumour = image[..., 1], mask > 0
        assert np.median(flair[tumour]) > np.median(flair[(flair > 40) & ~tumour]) * 1.2
        thresholds.append(max(dice(flair > level, tumour) for level in range(80, 255, 5)))
        shares.append(tumour.any(axis=(1, 2)).mean())
    assert np.mean(shares) == pytest.approx(0.4, abs=0.1)
    assert np.mean(thresholds) < 0.75, "a threshold must not be enough"


def test_some_patients_lack_a_sequence(synthetic_folder):
    lacking = [
        channel
        for folder in synthetic_folder.glob("TCGA_*")
        for channel in (0, 2)
        if np.array_equal((image := read(folder)[0])[..., channel], image[..., 1])
    ]
    assert sorted(lacking) == [0, 2]

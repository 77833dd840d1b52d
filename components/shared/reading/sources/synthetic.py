"""Synthetic patients in the layout of Kaggle's set and in others, for trials and tests.

The files are equal on every machine: all arithmetic is on integers or by `+ - * / sqrt`, which
IEEE 754 rounds in only one way (sums of arrays and `exp` differ between processors).
"""

import contextlib
import csv
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile

from components.shared.dataset.channels import LGG_CHANNELS
from components.shared.dataset.volumes import LabelMap, Pixels
from components.shared.errors import UserError
from components.shared.reading.sources.folder import FolderSource
from components.shared.reading.sources.source import Source
from components.shared.reading.sources.synthetic_forms import (
    FORMS,
    LABELS,
    SyntheticScan,
    write_scans,
)
from components.shared.reading.tcga import ATTRIBUTE_FILE, ATTRIBUTES, PATIENT_COLUMN

SCHEME = "synthetic:"
FORM = "synthetic:PATIENTS[,seed=N][,as=LAYOUT]"
SHARED = True

_FORM = re.compile(
    r"synthetic:(?P<patients>[0-9]{1,6})(?:,seed=(?P<seed>[0-9]{1,9}))?(?:,as=(?P<form>[a-z]+))?"
)
_FLAIR = LGG_CHANNELS.reference_index

Field = npt.NDArray[np.float64]

_SITES = ("CS", "DU", "FG", "HT")
_SIDE = 96
_SLICES = (12, 20)

# gray values of pre-contrast, FLAIR, post-contrast, in the manner of T1, T2-FLAIR, T1 + Gd
_AIR = (4.0, 4.0, 4.0)
_SCALP = (150.0, 135.0, 165.0)
_SKULL = (22.0, 18.0, 24.0)
_FLUID = (38.0, 30.0, 42.0)
_GREY = (84.0, 112.0, 92.0)
_WHITE = (112.0, 88.0, 120.0)
_TUMOUR = (74.0, 158.0, 84.0)
_RIM = (96.0, 150.0, 186.0)
_CORE = (52.0, 120.0, 60.0)


@dataclass(frozen=True)
class _Grid:
    z: Field
    y: Field
    x: Field

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.z.size, self.y.size, self.x.size


def check_form(uri: str) -> None:
    """Requires a number of patients, and at most a seed."""
    _parse(uri)


@contextlib.contextmanager
def open_uri(uri: str, max_archive_gib: float) -> Iterator[Source]:
    """Writes the patients to a temporary folder and opens it."""
    patients, seed, form = _parse(uri)
    with tempfile.TemporaryDirectory(prefix="brainseg-synthetic-") as folder:
        top = Path(folder)
        if form:
            write_scans(top, form, _make_scans(patients, seed))
        else:
            top = write_synthetic(top, patients, seed)
        yield FolderSource(uri, top.resolve())


def write_synthetic(folder: Path, patients: int, seed: int) -> Path:
    """Writes synthetic patients as `folder/kaggle_3m/TCGA_*/..._N.tif`, masks and `data.csv`.

    A patient depends only on its number and the seed: the first ten of twenty are the same as
    ten of ten.

    Args:
        folder: Parent folder; created if it is missing.
        patients: Number of patients.
        seed: Seed; other seeds make other patients with the same patient codes.

    Returns:
        The `kaggle_3m` folder.
    """
    top = folder / "kaggle_3m"
    top.mkdir(parents=True)
    with open(top / ATTRIBUTE_FILE, "w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow((PATIENT_COLUMN, *ATTRIBUTES))
        for number in range(patients):
            rng = np.random.default_rng([seed, number])
            name = _make_name(rng, number)
            image, labels = _make_voxels(rng, number)
            _write_slices(top / name, image, np.minimum(labels, 1))
            table.writerow((name.rpartition("_")[0], *_make_attributes(rng)))
    return top


def _parse(uri: str) -> tuple[int, int, str]:
    match = _FORM.fullmatch(uri)
    is_form = match is not None and (match["form"] is None or match["form"] in FORMS)
    if match is None or not is_form or int(match["patients"]) == 0:
        raise UserError(
            f"source {uri!r} is not understood; the form is {FORM}, e.g. synthetic:24,seed=1, with "
            f"LAYOUT one of {', '.join(FORMS)}"
        )
    return int(match["patients"]), int(match["seed"] or 0), match["form"] or ""


def _make_scans(patients: int, seed: int) -> Iterator[SyntheticScan]:
    """Yields the same patients as `write_synthetic`; every fourth has a second scan."""
    for number in range(patients):
        for session in range(2 if number % 4 == 1 else 1):
            rng = np.random.default_rng([seed, number, session][: 2 + session])
            name = _make_name(rng, number)
            image, labels = _make_voxels(rng, number)
            site, age = name.split("_")[1], int(rng.integers(20, 76))
            yield SyntheticScan(number + 1, session, site, age, image, labels)


def _write_slices(folder: Path, image: Pixels, mask: LabelMap) -> None:
    folder.mkdir()
    for number, (colors, tumour) in enumerate(zip(image, mask, strict=True), start=1):
        stem = folder / f"{folder.name}_{number}"
        tifffile.imwrite(f"{stem}.tif", colors, photometric="rgb", metadata=None)
        tifffile.imwrite(f"{stem}_mask.tif", tumour * np.uint8(255), metadata=None)


def _make_name(rng: np.random.Generator, number: int) -> str:
    year, month, day = (int(rng.integers(*bounds)) for bounds in ((1990, 2005), (1, 13), (1, 29)))
    return f"TCGA_{_SITES[number % len(_SITES)]}_{number + 1:04d}_{year}{month:02d}{day:02d}"


def _make_attributes(rng: np.random.Generator) -> tuple[str, ...]:
    codes = {column: str(rng.integers(1, 5)) for column in ATTRIBUTES}
    codes["age_at_initial_pathologic"] = str(rng.integers(20, 76))
    codes["gender"] = str(rng.integers(1, 3))
    codes["death01"] = str(rng.integers(0, 2))
    return tuple("" if rng.random() < 0.06 else code for code in codes.values())


def _make_voxels(rng: np.random.Generator, number: int) -> tuple[Pixels, LabelMap]:
    slices = int(rng.integers(_SLICES[0], _SLICES[1] + 1))
    z, plane = ((np.arange(count) * 2 + 1 - count) / count for count in (slices, _SIDE))
    grid = _Grid(z[:, None, None], plane[None, :, None], plane[None, None, :])
    painted, reach = _paint_head(rng, grid)
    labels = _paint_tumour(rng, grid, painted, reach)
    image = _scan(rng, grid, painted)
    if number % 7 == 3:
        image[..., 2] = image[..., _FLAIR]
    if number % 11 == 5:
        image[..., 0] = image[..., _FLAIR]
    return image, labels


def _paint_head(rng: np.random.Generator, grid: _Grid) -> tuple[Field, Field]:
    """Returns tissue, and each voxel's distance from the center of the brain (1: surface)."""
    wide, long = 0.70 + 0.06 * rng.random(), 0.86 + 0.06 * rng.random()
    egg = _Grid(grid.z, grid.y, grid.x * (1 + 0.1 * grid.y))  # narrower in front
    radius = _radius(egg, (0, 0, 0), (1.45, long, wide)) + 0.04 * _noise(rng, grid, (2, 4, 4))
    image = np.empty((*grid.shape, 3))
    image[:] = _AIR
    for limit, tissue in ((1.0, _SCALP), (0.93, _SKULL), (0.87, _FLUID), (0.83, _GREY)):
        image[radius < limit] = tissue
    folds = _noise(rng, grid, (5, 20, 20)) + 0.5 * _noise(rng, grid, (5, 32, 32))
    image[radius + 0.14 * folds < 0.71] = _WHITE
    furrow = (folds > 0.38) & (radius > 0.62) & (radius < 0.85)
    image[furrow] = 0.6 * image[furrow] + 0.4 * np.array(_FLUID)
    image[(np.abs(grid.x) < 0.018) & (np.abs(grid.y) > 0.25) & (radius < 0.85)] = _FLUID
    _paint_ventricles(rng, grid, image)
    return image, radius / 0.83


def _paint_ventricles(rng: np.random.Generator, grid: _Grid, image: Field) -> None:
    size = 0.8 + 0.5 * rng.random()
    for side in (-1, 1):
        bend = grid.x - side * (0.07 + 0.22 * grid.y * grid.y)
        radius = _radius(_Grid(grid.z, grid.y, bend), (0.1, 0.05, 0), (0.5, 0.36, 0.065 * size))
        nucleus = _radius(grid, (0, -0.02, side * 0.2), (0.35, 0.17, 0.075))
        image[nucleus < 1] = _GREY
        image[(radius < 1.15) & (np.abs(grid.y) > 0.27), _FLAIR] = 150  # caps: bright, no tumour
        image[radius < 1] = _FLUID


def _paint_tumour(rng: np.random.Generator, grid: _Grid, image: Field, reach: Field) -> LabelMap:
    side = 1 if rng.random() < 0.5 else -1
    center = (rng.random() - 0.5, 0.9 * rng.random() - 0.45, side * (0.2 + 0.2 * rng.random()))
    size = 0.12 + 0.18 * rng.random()
    shape = (0.8 * size + 0.14, size * (0.8 + 0.5 * rng.random()), size)
    edge = 0.35 * (_noise(rng, grid, (3, 7, 8)) + _noise(rng, grid, (4, 17, 19)))
    radius = _radius(grid, center, shape) + edge
    tumour = (radius < 1) & (reach < 0.98)
    patchy = 0.75 + 0.25 * _noise(rng, grid, (4, 16, 16))[tumour, None]
    image[tumour] += patchy * (np.array(_TUMOUR) - image[tumour])
    labels = tumour * np.uint8(LABELS["edema"])
    if rng.random() < 0.4:  # a core that takes up contrast agent at its rim
        for limit, tissue, label in ((0.55, _RIM, "enhancing"), (0.35, _CORE, "necrosis")):
            inside = (radius < limit) & tumour
            image[inside], labels[inside] = tissue, LABELS[label]
    return labels


def _scan(rng: np.random.Generator, grid: _Grid, image: Field) -> Pixels:
    """Adds effects of a scanner: blur, uneven sensitivity, gain, Rician noise."""
    image = _blur(_blur(image, axis=1), axis=2)
    gain = 0.8 + 0.4 * rng.random(3)
    bias = 1 + 0.22 * _noise(rng, grid, (1, 2, 2))
    level = 3 + 4 * rng.random()
    signal = image * gain * bias[..., None] + level * _bell(rng, image.shape)
    other = level * _bell(rng, image.shape)
    return np.minimum(np.sqrt(signal * signal + other * other), 255).astype(np.uint8)


def _blur(values: Field, axis: int) -> Field:
    before, after = np.roll(values, 1, axis), np.roll(values, -1, axis)
    return (before + 2 * values + after) / 4


def _bell(rng: np.random.Generator, shape: tuple[int, ...]) -> Field:
    # three uniform numbers have variance 1/4: nearly normal, without a logarithm
    return 2 * (rng.random(shape) + rng.random(shape) + rng.random(shape) - 1.5)


def _radius(
    grid: _Grid, center: tuple[float, float, float], half: tuple[float, float, float]
) -> Field:
    z, y, x = (
        (axis - middle) / length
        for axis, middle, length in zip((grid.z, grid.y, grid.x), center, half, strict=True)
    )
    return np.sqrt(z * z + y * y + x * x)


def _noise(rng: np.random.Generator, grid: _Grid, cells: tuple[int, int, int]) -> Field:
    """Smooth noise in -1 to 1: random values at the corners of cells, blended in between."""
    values = rng.random(tuple(count + 1 for count in cells)) * 2 - 1
    for axis, (points, count) in enumerate(zip(grid.shape, cells, strict=True)):
        values = _blend(values, axis, points, count)
    return values


def _blend(values: Field, axis: int, points: int, cells: int) -> Field:
    place = (np.arange(points) * 2 + 1) * cells / (2 * points)
    corner = np.minimum(place.astype(np.int64), cells - 1)
    part = place - corner
    weight = part * part * (3 - 2 * part)
    weight = weight.reshape([-1 if dimension == axis else 1 for dimension in range(3)])
    low, high = np.take(values, corner, axis), np.take(values, corner + 1, axis)
    return low + weight * (high - low)

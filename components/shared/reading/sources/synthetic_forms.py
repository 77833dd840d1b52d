"""Synthetic patients as NIfTI or DICOM files, in each prefilled layout and in one to declare.

Voxels are 6 x 2.5 x 2 mm. Arrays are stored in three orientations, one of them oblique.
"""

import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt

from components.shared.dataset.geometry import Affine, Geometry
from components.shared.dataset.volumes import LabelMap, Pixels
from components.shared.reading.axial import Turn
from components.shared.reading.dicom import encode_mask
from components.shared.reading.dicom_series import encode_series

LABELS = {"necrosis": 1, "edema": 2, "enhancing": 3}  # as in BraTS

_SPACING_MM = (6.0, 2.5, 2.0)  # of slices, rows and columns
_COSINE, _SINE = 60 / 61, 11 / 61  # of 10 degrees; quotients are equal on every machine
_GAIN = np.int16(8)  # more than 8 bits
# the array's axes that become slices, rows and columns, and whether they are reversed: RAS, LPI
# with slices first, and LPS, turned by 10 degrees
_TURNS = (
    Turn((2, 1, 0), (False, True, True)),
    Turn((0, 2, 1), (True, False, False)),
    Turn((2, 1, 0), (False, False, False)),
)


@dataclass(frozen=True)
class SyntheticScan:
    """One scan of a synthetic patient.

    Attributes:
        number: Number of the patient, from 1.
        session: Number of the scan, from 0.
        site: Code of the institution.
        age: Age in years.
        image: uint8, slices x height x width x 3: pre-contrast, FLAIR, post-contrast.
        labels: Label map, see `LABELS`.
    """

    number: int
    session: int
    site: str
    age: int
    image: Pixels
    labels: LabelMap


@dataclass(frozen=True)
class _Form:
    """Paths of one layout.

    Attributes:
        images: Path of each channel.
        label: Path of the label map.
        sessions: Whether a patient may have several scans.
        table: Path of the table of patients.
        description: Keys of `dataset.json`, if it has one.
    """

    images: Mapping[str, str]
    label: str
    sessions: bool = False
    table: str = ""
    description: Mapping[str, Any] | None = None


_BRATS = "BraTS-SYN-{patient:05d}-{session:03d}"
_BIDS = "sub-{patient:04d}/ses-{session}/anat/sub-{patient:04d}_ses-{session}"
_NAMES = ("T1", "T1c", "T2", "FLAIR")
_NUMBERED = {str(number): name for number, name in enumerate(_NAMES)}
FORMS: Mapping[str, _Form] = {
    "nifti": _Form(
        {name: f"patient-{{patient:04d}}/{name}.nii.gz" for name in ("T1", "T1c", "FLAIR")},
        "patient-{patient:04d}/seg.nii.gz",
        table="patients.csv",
    ),
    "nnunet": _Form(
        {name: f"imagesTr/syn_{{patient:03d}}_{i:04d}.nii.gz" for i, name in enumerate(_NAMES)},
        "labelsTr/syn_{patient:03d}.nii.gz",
        description={
            "channel_names": _NUMBERED,
            "labels": {"background": 0, **LABELS},
            "file_ending": ".nii.gz",
        },
    ),
    "msd": _Form(
        dict.fromkeys(_NAMES, "imagesTr/syn_{patient:03d}.nii.gz"),
        "labelsTr/syn_{patient:03d}.nii.gz",
        description={
            "modality": _NUMBERED,
            "labels": {"0": "background", **{str(v): name for name, v in LABELS.items()}},
        },
    ),
    "bids": _Form(
        {name: f"{_BIDS}_{name}.nii.gz" for name in ("T1w", "T2w", "FLAIR")},
        f"derivatives/manual/{_BIDS}_label-lesion_dseg.nii.gz",
        sessions=True,
        table="participants.tsv",
    ),
    "brats": _Form(
        {
            name: f"{_BRATS}/{_BRATS}-{end}.nii.gz"
            for name, end in zip(_NAMES, ("t1n", "t1c", "t2w", "t2f"), strict=True)
        },
        f"{_BRATS}/{_BRATS}-seg.nii.gz",
        sessions=True,
    ),
    "dicom": _Form(
        {name: f"patient-{{patient:04d}}/{name}" for name in _NAMES},
        "patient-{patient:04d}/seg.dcm",
    ),
}


def write_scans(top: Path, form: str, scans: Iterable[SyntheticScan]) -> None:
    """Writes scans to a folder in the form of a layout.

    Args:
        top: Folder, which exists.
        form: One of `FORMS`.
        scans: Scans, those of later sessions are left out where the form has none.
    """
    paths, rows = FORMS[form], dict[str, str]()
    separator = "\t" if paths.table.endswith(".tsv") else ","
    for scan in scans:
        if scan.session and not paths.sessions:
            continue
        write = _write_series if form == "dicom" else _write_scan
        write(top, paths, form, scan)
        patient = f"{'sub' if form == 'bids' else 'patient'}-{scan.number:04d}"
        rows.setdefault(patient, separator.join((patient, scan.site, str(scan.age))))
    if paths.table:
        head = separator.join(("participant_id", "site", "age"))
        (top / paths.table).write_text("\n".join((head, *rows.values(), "")))
    if paths.description:
        (top / "dataset.json").write_text(json.dumps(paths.description, indent=2))


def _write_scan(top: Path, paths: _Form, form: str, scan: SyntheticScan) -> None:
    images, files = _images(scan), dict[str, list[npt.NDArray[Any]]]()
    for name, path in paths.images.items():
        files.setdefault(path, []).append(images[name])
    # a lesion of BIDS is one label
    files[paths.label] = [np.minimum(scan.labels, 1) if form == "bids" else scan.labels]
    for path, voxels in files.items():
        target = top / path.format(patient=scan.number, session=scan.session)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_encode(voxels, _TURNS[scan.number % len(_TURNS)]))


def _write_series(top: Path, paths: _Form, form: str, scan: SyntheticScan) -> None:
    """Writes a series for each channel, and the union of all labels as a segmentation."""
    del form
    affine = np.zeros((3, 4))
    affine[[2, 1, 0], [0, 1, 2]] = _SPACING_MM
    images, series = _images(scan), list[tuple[str, bytes]]()
    for name, path in paths.images.items():
        folder = top / path.format(patient=scan.number)
        folder.mkdir(parents=True)
        # the identifiers stand for those of a patient, which must not leave the files
        files = encode_series(images[name], Geometry.of_affine(affine), f"Doe^{scan.number:04d}")
        series = [(f"{index:03d}.dcm", data) for index, data in enumerate(files)]
        for file, data in series:
            (folder / file).write_bytes(data)
    mask = np.minimum(scan.labels, 1)
    label = top / paths.label.format(patient=scan.number)
    label.write_bytes(encode_mask(series, mask[None], ("tumour",)))


def _images(scan: SyntheticScan) -> dict[str, npt.NDArray[np.int16]]:
    before, flair, after = (scan.image[..., channel] * _GAIN for channel in range(3))
    second = (flair + after) // np.int16(2)
    return {"T1": before, "T1w": before, "T1c": after, "T2": second, "T2w": second, "FLAIR": flair}


def _encode(channels: list[npt.NDArray[Any]], turn: Turn) -> bytes:
    """Encodes axial arrays as one .nii.gz file, with a fourth axis if there are several."""
    stored = [turn.undo(channel) for channel in channels]
    array = np.stack(stored, axis=-1) if len(stored) > 1 else stored[0]
    header = nibabel.Nifti1Header()
    header.set_data_shape(array.shape)
    header.set_data_dtype(array.dtype)
    header.set_xyzt_units("mm")
    header.set_sform(_affine(turn, channels[0].shape), code=1)
    # not by set_qform, which computes it from eigenvectors
    spacing = dict(zip(turn.axes, _SPACING_MM, strict=True))
    header["pixdim"][1:4] = [spacing[axis] for axis in range(3)]
    header["vox_offset"] = header.sizeof_hdr + 4
    body = np.asarray(array, array.dtype.newbyteorder("<")).tobytes(order="F")
    return gzip.compress(header.binaryblock + b"\0\0\0\0" + body, compresslevel=1, mtime=0)


def _affine(turn: Turn, shape: tuple[int, ...]) -> Affine:
    """RAS affine of a stored array; its center is at (0, 0, 0)."""
    axial = np.zeros((4, 4))  # from (slice, row, column) to LPS
    axial[3, 3] = 1
    for place, spacing in enumerate(_SPACING_MM):
        axial[2 - place, place] = spacing
    if not any(turn.flipped):  # oblique: around the axis from right to left
        axial[1:3, :2] = [[_SINE * 6.0, _COSINE * 2.5], [_COSINE * 6.0, -_SINE * 2.5]]
    axial[:3, 3] = -axial[:3, :3] @ ((np.array(shape) - 1) / 2)
    stored_shape = tuple(shape[turn.axes.index(axis)] for axis in range(3))
    back = np.linalg.inv(turn.turned_affine(np.eye(4), stored_shape))
    return np.diag((-1.0, -1.0, 1.0, 1.0)) @ axial @ back

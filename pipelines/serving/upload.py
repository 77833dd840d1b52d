"""Predictions of uploaded files: a NIfTI file, or a .zip of one volume in a layout.

The files are read by a process with limited memory: a hostile one ends that process only.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components.predict.prediction import PredictTask, predict_scan
from components.shared.dataset.channels import Channels
from components.shared.dataset.volumes import Volume
from components.shared.errors import UserError
from components.shared.reading import nifti
from components.shared.reading.layouts.layout import Layout
from components.shared.reading.layouts.opening import open_layout
from components.shared.reading.layouts.settings import LayoutSettings
from components.shared.reading.scans import BadScanError, Scan, SizeLimits
from components.shared.reading.sources.archive import ArchiveSource
from components.shared.reading.sources.folder import FolderSource
from components.shared.reading.sources.source import Source
from components.shared.reading.workers import Limits, Refused, run_in_workers
from components.shared.storage.store import FolderStore
from pipelines.serving.loaded import LoadedModel
from pipelines.serving.settings import ServeSettings

CPU_S = 60  # a volume of 400 MiB takes about 5

_ZIP = b"PK"
_NIFTI_FILE = "upload.nii.gz"  # gzipped or not: its first bytes count
_FILES = {"nifti": _NIFTI_FILE, "zip": "upload.zip"}

Kind = Literal["nifti", "zip"]


class RefusedUploadError(UserError):
    """An upload that cannot be predicted; the text is one sentence."""


@dataclass(frozen=True)
class Upload:
    """An uploaded file.

    Attributes:
        path: The file, alone in its folder.
        layout: Layout of the file.
        channels: Channels of the model.
        limits: Largest sizes.
    """

    path: Path
    kind: Kind
    layout: LayoutSettings
    channels: Channels
    limits: SizeLimits

    @property
    def source(self) -> Source:
        """The file as a source, under a name that hides the server's folders."""
        if self.kind == "nifti":
            return FolderSource("upload", self.path.parent.resolve())
        gib = 2 * self.limits.max_volume_mib / 1024  # voxels and masks, both uncompressed
        return ArchiveSource("upload.zip", self.path, gib)

    def open(self, source: Source) -> Layout:
        """The layout without labels."""
        return open_layout(self.layout, source, with_labels=False)


@dataclass(frozen=True)
class Answer:
    """An encoded mask.

    Attributes:
        name: File name.
        content: The file.
    """

    name: str
    content: bytes


def predict_upload(path: Path, model: LoadedModel, settings: ServeSettings) -> Answer:
    """Predicts the volume in a file.

    Args:
        path: The file, alone in its folder, where the mask is written, too.
        model: Model to use.
        settings: Limits, and the layout of a .zip.

    Raises:
        RefusedUploadError: If it cannot be read or predicted.
        UserError: As above, from a layout or the model.
    """
    upload = _upload(path, model, settings)
    limits = Limits(upload.limits.worker_bytes, CPU_S)
    ((_, read),) = run_in_workers(read_upload, [upload], workers=1, limits=limits)
    if isinstance(read, Refused):
        raise RefusedUploadError(read.reason)
    scan, volume = read
    folder = path.parent / "masks"
    source = upload.source
    layout = upload.open(source)
    store = FolderStore(folder)
    task = PredictTask(model.segmenter, model.threshold, store, settings.predict, source, layout)
    row = predict_scan(task, scan, volume, lambda *_: None)
    if row.status == "refused":
        raise RefusedUploadError(row.reason)
    key = task.key(scan.name.volume, "mask")
    return Answer(key, store.read(key))


def read_upload(upload: Upload) -> tuple[Scan, Volume]:
    """Reads the only volume of a file.

    Raises:
        BadScanError: If it cannot be read, or is not one volume.
        UserError: If nothing in it has the form of the layout.
    """
    if upload.kind == "nifti":
        _check_channels(upload)
    source = upload.source
    layout = upload.open(source)
    listing = layout.list_scans(source)
    if listing.quarantined:
        bad = listing.quarantined[0]
        raise BadScanError(f"{bad.volume}: {bad.reason}")
    if len(listing.scans) != 1:
        raise BadScanError(f"it holds {len(listing.scans)} volumes; send one at a time")
    (scan,) = listing.scans
    return scan, layout.read_scan(source, scan, upload.limits)


def _upload(path: Path, model: LoadedModel, settings: ServeSettings) -> Upload:
    with open(path, "rb") as stream:
        kind: Kind = "zip" if stream.read(2) == _ZIP else "nifti"
    channels = model.segmenter.channels
    named = path.rename(path.with_name(_FILES[kind]))
    layout = settings.layout if kind == "zip" else _nifti_layout(channels)
    return Upload(named, kind, layout, channels, settings.predict.limits)


def _nifti_layout(channels: Channels) -> LayoutSettings:
    files = {name: f"{{case}}.nii.gz#{index}" for index, name in enumerate(channels.names)}
    return LayoutSettings(
        name="declared", format="nifti", channels=files, reference=channels.reference
    )


def _check_channels(upload: Upload) -> None:
    shape = nifti.read_header(upload.path.read_bytes()).shape
    count, names = (shape[3] if len(shape) == 4 else 1), upload.channels.names
    if count != len(names):
        raise BadScanError(
            f"it holds {count} images, the model expects {len(names)} ({', '.join(names)}), along "
            "the fourth axis in this order"
        )

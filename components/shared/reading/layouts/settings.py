"""Settings of layouts: which file of a source is what."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, model_validator

from components.shared.config import Config
from components.shared.dataset.channels import LGG_LABELS, Channels, Name, Target
from components.shared.reading.layouts.patterns import PathPattern

Paths = str | tuple[str, ...]
Label = Annotated[int, Field(ge=1, le=255)]

_BRATS = "**/{case}"
PREFILLED: Mapping[str, Mapping[str, Any]] = {
    "declared": {},
    "tcga": {},
    # channels and labels are those of dataset.json, see `opening.py`
    "nnunet": {},
    "msd": {},
    "bids": {
        "channels": {
            name: f"{{patient}}/[{{session}}/]anat/{{patient}}[_{{session}}]_{name}.nii.gz"
            for name in ("T1w", "T2w", "FLAIR")
        },
        "label": "derivatives/**/{patient}/[{session}/]anat/{patient}[_{session}]_*dseg.nii.gz",
        "reference": "FLAIR",
        "labels": {"lesion": 1},
        "table": "participants.tsv",
    },
    "brats": {
        "channels": {
            "T1": (f"{_BRATS}-t1n.nii.gz", f"{_BRATS}_t1.nii.gz"),
            "T1c": (f"{_BRATS}-t1c.nii.gz", f"{_BRATS}_t1ce.nii.gz"),
            "T2": (f"{_BRATS}-t2w.nii.gz", f"{_BRATS}_t2.nii.gz"),
            "FLAIR": (f"{_BRATS}-t2f.nii.gz", f"{_BRATS}_flair.nii.gz"),
        },
        "label": (f"{_BRATS}-seg.nii.gz", f"{_BRATS}_seg.nii.gz"),
        "reference": "FLAIR",
        "labels": {"necrosis": 1, "edema": 2, "enhancing": 3},
        "targets": {"tumour": (1, 2, 3)},
        "patient": r"(?P<patient>.+?)(-(?P<session>[0-9]{3}))?$",
    },
    "dicom": {
        "format": "dicom",
        "channels": {name: f"**/{{case}}/{name}/*" for name in ("T1", "T1c", "T2", "FLAIR")},
        "label": "**/{case}/seg.dcm",
        "labels": {"tumour": 1},
    },
}


class LayoutSettings(Config):
    """Arrangement of a source's files. All but `name` is prefilled by it, and can be changed.

    In a path, `{field}` is a part without `/`, and the same text where it comes again; `*` is any
    text without `/`, `**/` any number of folders, and `[...]` may be absent.

    Attributes:
        name: `tcga`, `nnunet`, `msd`, `bids`, `brats`, `dicom`, or `declared` for your own.
        format: `nifti`, or `dicom`, with all files of a series under one path and labels in a
            DICOM-SEG, whose segment numbers are the labels' values.
        channels: Path, or several possible paths, of each channel. `path#N` is image N of a file
            with a fourth axis.
        label: Path of the label map.
        reference: Channel that reports show (default: FLAIR, else the first one).
        optional: Channels that a case may lack; a copy of the reference replaces them.
        labels: Value of each label.
        targets: Labels of each structure that a model finds (default: all together). The first
            one is that of the headline.
        patient: Regular expression that finds `(?P<patient>...)` and other fields in a case's
            name (default: the field `patient` of the paths, else each case is a patient).
        table: Path of a table of patients, `.csv` or `.tsv`; its first column names the patient or
            the case.
        site: Field or column with the site.
        date: Field or column with the day of the scan, `yyyymmdd` or `yyyy-mm-dd`.
        hash_patients: Whether names of patients and cases are replaced by digests.
    """

    name: Literal["tcga", "declared", "nnunet", "msd", "bids", "brats", "dicom"] = "tcga"
    format: Literal["nifti", "dicom"] = "nifti"
    channels: dict[Name, Paths] = Field(default_factory=dict)
    label: Paths = ()
    reference: str = ""
    optional: tuple[str, ...] = ()
    labels: dict[str, Label] = Field(default_factory=dict)
    targets: dict[Name, tuple[Label, ...]] = Field(default_factory=dict)
    patient: str = ""
    table: str = ""
    site: str = ""
    date: str = ""
    hash_patients: bool = False

    @model_validator(mode="before")
    @classmethod
    def _prefill(cls, given: object) -> object:
        given = {"name": given} if isinstance(given, str) else given  # layout: brats
        if not isinstance(given, Mapping):
            return given
        values = cast(Mapping[str, Any], given)
        return {**PREFILLED.get(str(values.get("name", "tcga")), {}), **values}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.name == "tcga":
            changed = sorted(self.model_fields_set - {"name"} - _unchanged(self))
            if changed:
                raise ValueError(
                    f"the layout tcga has fixed paths, not {', '.join(changed)}; set name to "
                    "declared, nnunet, msd, bids, brats or dicom"
                )
            return self
        if self.name == "declared" and not self.channels:
            raise ValueError("the layout declared needs `channels`: a path for each channel")
        _check_paths(self)
        _check_names(self)
        return self


def _unchanged(settings: LayoutSettings) -> set[str]:
    """Settings that have their defaults: a rendered preset holds all of them."""
    fields = LayoutSettings.model_fields
    return {
        name
        for name, field in fields.items()
        if getattr(settings, name) == field.get_default(call_default_factory=True)
    }


def all_paths(paths: Paths) -> tuple[str, ...]:
    """The paths of a setting that may be one or several."""
    return (paths,) if isinstance(paths, str) else paths


def _check_paths(settings: LayoutSettings) -> None:
    fields = {}
    for role, paths in {**settings.channels, "label": settings.label}.items():
        for path in all_paths(paths):
            fields[f"{role}: {path}"] = PathPattern.parse(path).fields
    if settings.table:
        PathPattern.parse(settings.table)
    if len(set(map(frozenset, fields.values()))) > 1:
        listed = "; ".join(f"{path} has {', '.join(found)}" for path, found in fields.items())
        raise ValueError(f"all paths must have the same fields, which identify a case: {listed}")
    if fields and not next(iter(fields.values())):
        raise ValueError("a path needs a field that identifies the case, e.g. {case}")


def _check_names(settings: LayoutSettings) -> None:
    if "label" in settings.channels:
        raise ValueError("no channel may have the name label")
    others = [name for name in settings.optional if name not in settings.channels]
    if others or reference_of(settings) in settings.optional:
        raise ValueError("optional must name channels other than the reference")
    if settings.channels:
        Channels(names=tuple(settings.channels), reference=reference_of(settings))
    try:
        found = re.compile(settings.patient).groupindex
    except re.error as error:
        raise ValueError(f"patient is no regular expression: {error}") from error
    if settings.patient and "patient" not in found:
        raise ValueError("patient needs a group named patient: (?P<patient>...)")
    known = set(settings.labels.values())
    unknown = {name: set(found) - known for name, found in settings.targets.items()}
    for name, values in unknown.items():
        if settings.labels and values:
            raise ValueError(f"target {name} has the value {min(values)}, which no label has")
        if len(settings.targets) > 1 and "+" in name:
            raise ValueError(f"target {name}: MLflow refuses the + in names of metrics; rename it")


def reference_of(settings: LayoutSettings) -> str:
    """The channel that reports show."""
    flair = [name for name in settings.channels if name.lower() == "flair"]
    return settings.reference or next(iter([*flair, *settings.channels]), "")


def channels_of(settings: LayoutSettings) -> Channels:
    """The channels of a data set with this layout."""
    return Channels(
        names=tuple(settings.channels), reference=reference_of(settings), dtype="float32"
    )


def targets_of(settings: LayoutSettings) -> tuple[Target, ...]:
    """The targets of a data set with this layout."""
    if settings.targets:
        return tuple(Target(name=name, labels=each) for name, each in settings.targets.items())
    labels = labels_of(settings)
    values = tuple(sorted(labels.values()))
    return (Target(name=next(iter(labels)) if len(values) == 1 else "foreground", labels=values),)


def labels_of(settings: LayoutSettings) -> dict[str, int]:
    """The labels of a data set with this layout."""
    return settings.labels or LGG_LABELS.copy()

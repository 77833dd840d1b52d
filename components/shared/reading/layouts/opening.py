"""Opening a layout: settings, completed by the `dataset.json` of nnU-Net and MSD."""

import json
import re
from collections.abc import Mapping
from typing import Any

from components.shared.config import build_config
from components.shared.errors import UserError
from components.shared.reading.layouts.declared import DeclaredLayout, below_top
from components.shared.reading.layouts.layout import Layout
from components.shared.reading.layouts.settings import LayoutSettings
from components.shared.reading.layouts.tcga import TcgaLayout
from components.shared.reading.sources.source import Source, UnreadableFileError

DESCRIPTION = "dataset.json"
_MOST_BYTES = 2**26
_ENDINGS = (".nii.gz", ".nii")


def open_layout(settings: LayoutSettings, source: Source, with_labels: bool = True) -> Layout:
    """Builds the layout of a source.

    Args:
        settings: The declared or prefilled layout.
        source: Source, whose `dataset.json` is read where the layout has one.
        with_labels: Whether every scan must have a label; otherwise none is read.

    Raises:
        UserError: If `dataset.json` is missing or not understood, and the settings do not
            declare the channels.
    """
    if settings.name == "tcga":
        return TcgaLayout(with_labels)
    if settings.name in ("nnunet", "msd"):
        settings = _described(settings, source, with_labels)
    return DeclaredLayout(settings, with_labels)


def _described(settings: LayoutSettings, source: Source, with_labels: bool) -> LayoutSettings:
    given = {k: v for k, v in settings.model_dump(exclude_unset=True).items() if v}
    content = _read(source, is_required="channels" not in given)
    if not content:
        return settings
    try:
        found = _filled(settings.name, content, with_labels)
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"source {source.uri}: {DESCRIPTION} is not that of {settings.name}: {error}; correct "
            "it, or set layout.channels, layout.label and layout.labels"
        ) from error
    return build_config(LayoutSettings, {**found, **given}, DESCRIPTION)


def _read(source: Source, is_required: bool) -> Mapping[str, Any]:
    paths = below_top(source.files())
    file = next((file for file, path in paths.items() if path == DESCRIPTION), None)
    if file is None and is_required:
        raise UserError(
            f"source {source.uri} has no {DESCRIPTION}; give the folder that holds it, or set "
            "layout.channels to a path for each channel"
        )
    if file is None:
        return {}
    try:
        if file.size > _MOST_BYTES:
            raise ValueError("it is too large")
        content = json.loads(source.read(file.path))
        if not isinstance(content, Mapping):
            raise ValueError("it is no JSON object")
    except (UnreadableFileError, ValueError) as error:
        raise UserError(f"source {source.uri}: {file.path}: {error}") from error
    return content


def _filled(name: str, content: Mapping[str, Any], with_labels: bool) -> dict[str, Any]:
    names = content.get("channel_names") or content.get("modality")
    if not isinstance(names, Mapping):
        raise ValueError("it has no channel_names")
    ending = content.get("file_ending", ".nii.gz")
    if ending not in _ENDINGS:
        raise ValueError(f"file_ending {ending!r} is not read, only {' and '.join(_ENDINGS)}")
    labels, targets = _labels(content.get("labels") or {})
    # new images may lie in any folder
    case = f"{'imagesTr/' if with_labels else '**/'}{{case}}"
    channels = {}
    for number, key in enumerate(sorted(names, key=int)):
        end = f"_{number:04d}{ending}" if name == "nnunet" else ending
        index = f"#{number}" if name == "msd" and len(names) > 1 else ""
        channels[_clean(names[key])] = case + end + index
    label = f"labelsTr/{{case}}{ending}"
    return {"channels": channels, "label": label, "labels": labels, "targets": targets}


def _labels(found: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
    """Returns labels and targets; nnU-Net has names first, MSD has values first.

    A region of nnU-Net, a list of values, becomes a target.
    """
    named = {str(v): int(k) for k, v in found.items()} if all(map(str.isdigit, found)) else found
    regions = {
        _clean(name): tuple(map(int, values)) if isinstance(values, list) else (int(values),)
        for name, values in named.items()
        if name != "ignore"
    }
    regions = {name: values for name, values in regions.items() if values != (0,)}
    if all(len(values) == 1 for values in regions.values()):
        return {name: values[0] for name, values in regions.items()}, {}
    single = {values[0]: name for name, values in regions.items() if len(values) == 1}
    values = sorted({value for each in regions.values() for value in each})
    return {single.get(value, f"label {value}"): value for value in values}, regions


def _clean(name: object) -> str:
    """A name with characters that names of channels may have."""
    return re.sub(r"[^A-Za-z0-9 _.+-]", "-", str(name)).strip(" -_.+")[:40] or "channel"

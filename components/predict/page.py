"""HTML page of predictions."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from components.shared.config import Record
from components.shared.dataset.volumes import Mask, Volume
from components.shared.report.overlay import OUTLINES, draw_slice, largest_tumour_slice
from components.shared.report.page import (
    Block,
    Figures,
    Gallery,
    Notice,
    Picture,
    Section,
    Table,
    photograph,
    render_page,
)

_FURTHER = "further"  # attribute that is spread over columns


class TargetSize(Record):
    """Predicted size of a target.

    Attributes:
        tumour_pixels: Number of pixels.
        tumour_ml: Size in milliliters, where the spacing is known.
    """

    tumour_pixels: int
    tumour_ml: float | None


class VolumePrediction(Record):
    """Prediction of a volume; a refused volume has only a reason. Tumour is the first target.

    Attributes:
        volume: Name of the volume.
        slices: Number of slices.
        tumour_pixels: Number of pixels predicted as tumour.
        tumour_slices: Number of slices with predicted tumour.
        tumour_ml: Size of the predicted tumour in milliliters, where the spacing is known.
        mean_probability: Mean over all voxels.
        max_probability: Maximum over all voxels.
        status: `ok` or `refused`.
        reason: Reason of a refusal.
        further: Sizes of the other targets, by name.
    """

    volume: str
    slices: int | None = None
    tumour_pixels: int | None = None
    tumour_slices: int | None = None
    tumour_ml: float | None = None
    mean_probability: float | None = None
    max_probability: float | None = None
    status: Literal["ok", "refused"] = "ok"
    reason: str = ""
    further: Mapping[str, TargetSize] = Field(default_factory=dict)

    @classmethod
    def columns(cls, further: Sequence[str]) -> dict[str, Any]:
        """Types of a table's columns by name; those of a further target have its name in front."""
        own = {name: each.annotation for name, each in cls.model_fields.items() if name != _FURTHER}
        sizes = TargetSize.model_fields.items()
        return own | {f"{one}_{name}": size.annotation for one in further for name, size in sizes}

    def cells(self) -> dict[str, Any]:
        """Values by column, see `columns`."""
        sizes = {
            f"{one}_{name}": value for one, size in self.further.items() for name, value in size
        }
        return self.model_dump(exclude={_FURTHER}) | sizes


_COLUMNS = ("volume", "slices", "tumour px", "tumour slices", "mean prob.", "max prob.")


def take_snapshot(name: str, volume: Volume, predicted: Mask) -> Picture:
    """Draws the slice with most predicted tumour, the first target, with outlines.

    Args:
        name: Name of the volume.
        volume: Voxels without a true mask, and the model's targets.
        predicted: Mask of each target, targets x slices x height x width.
    """
    index = largest_tumour_slice(predicted[0])
    pixels = int(predicted[0, index].sum())
    what = f"{pixels:,} px" if pixels else "no tumour found, middle slice"
    return Picture(
        source=photograph(draw_slice(volume, predicted, index)),
        caption=f"{name}, slice {index + 1} of {predicted.shape[1]}: {what}",
        width_px=240,
    )


def render_predictions(
    model: str,
    source: str,
    rows: Sequence[VolumePrediction],
    snapshots: Sequence[Picture],
    decision: str,
    channel: str,
    targets: Sequence[str],
) -> str:
    """Renders the page: a row per volume, and snapshots of the first predicted volumes.

    `decision` is the rule from probability to tumour in words, see `decision_text`; `channel` is
    the name of the drawn channel, `targets` are those of the model.
    """
    predicted = [row for row in rows if row.status == "ok"]
    refused = [row for row in rows if row.status == "refused"]
    sections = [
        Section("Summary", _summary(predicted, refused, decision)),
        Section("Pictures", _pictures(predicted, snapshots, channel, targets)),
        Section("Volumes", _volumes(predicted, targets)),
    ]
    if refused:
        table = Table(("volume", "reason"), [(row.volume, row.reason) for row in refused])
        sections.append(Section("Refused volumes", [table]))
    return render_page("Predictions", f"model {model}, source {source}", sections)


def _summary(
    predicted: Sequence[VolumePrediction], refused: Sequence[VolumePrediction], decision: str
) -> list[Block]:
    found = sum(bool(row.tumour_pixels) for row in predicted)
    figures = Figures(
        [
            ("volumes predicted", str(len(predicted)), ""),
            ("with tumour found", str(found), ""),
            ("volumes refused", str(len(refused)), "see Refused volumes" if refused else ""),
        ]
    )
    blocks: list[Block] = [figures]
    if refused:
        blocks.append(Notice("warning", f"Volumes that could not be predicted: {len(refused)}."))
    blocks.append(
        f"{decision} The evaluation of the model used the same rule. These predictions are for "
        "research and are not a diagnosis."
    )
    return blocks


def _pictures(
    predicted: Sequence[VolumePrediction],
    snapshots: Sequence[Picture],
    channel: str,
    targets: Sequence[str],
) -> list[Block]:
    shown = f"{channel} of the slice with most predicted tumour, {_colors(targets)}."
    if len(snapshots) < len(predicted):
        shown += (
            f" The first {len(snapshots)} of {len(predicted)} volumes are shown. The folder of "
            "this page has all masks."
        )
    return [shown, Gallery(snapshots)]


def _colors(targets: Sequence[str]) -> str:
    if len(targets) == 1:
        return "outlined in magenta"
    colors = [
        f"{name} in {outline.prediction_name}"
        for name, outline in zip(targets, OUTLINES, strict=False)
    ]
    return f"with outlines of {', '.join(colors)}"


def _volumes(predicted: Sequence[VolumePrediction], targets: Sequence[str]) -> list[Block]:
    first, *further = targets
    columns = (*_COLUMNS, *(f"{target} px" for target in further))
    table = Table(columns, [_cells(row) for row in predicted])
    return [f"Columns that name no target are those of {first}.", table] if further else [table]


def _cells(row: VolumePrediction) -> tuple[str | float | int | None, ...]:
    numbers = (row.slices, row.tumour_pixels, row.tumour_slices)
    further = (size.tumour_pixels for size in row.further.values())
    return (row.volume, *numbers, row.mean_probability, row.max_probability, *further)

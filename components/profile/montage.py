"""Pictures of typical and extreme volumes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from components.profile.measures import Measures
from components.profile.outliers import Outlier
from components.shared.dataset.channels import Channels
from components.shared.dataset.manifest import Manifest, VolumeEntry
from components.shared.dataset.parts import open_volume
from components.shared.dataset.volumes import Mask, Volume, Voxels
from components.shared.progress import track
from components.shared.report.overlay import draw_channel, draw_slice, largest_tumour_slice
from components.shared.storage.store import Store

_PANEL_PX = 160
_GAP_PX = 4
_FEWEST_COLUMNS = 4


@dataclass(frozen=True)
class Card:
    """Pictures of one volume, and the reason to show it.

    Attributes:
        pixels: uint8, height x width x 3. Top row: all channels, and the reference with the mask's
            outline, at the slice with most tumour. Bottom row: slices through the volume.
    """

    entry: VolumeEntry
    reason: str
    pixels: Voxels


def choose_volumes(
    measures: Measures, outliers: Sequence[Outlier], count: int
) -> list[tuple[int, str]]:
    """Picks at most `count` typical and extreme volumes.

    Returns:
        Positions in the manifest with their reasons, typical volumes first.
    """
    reasons: dict[int, list[str]] = {}
    for index, reason in _candidates(measures, outliers):
        reasons.setdefault(index, []).append(reason)
    return [(index, ", ".join(found)) for index, found in reasons.items()][:count]


def make_cards(
    manifest: Manifest, chosen: Sequence[tuple[int, str]], store: Store, cache: Path
) -> list[Card]:
    """Reads the chosen volumes and draws them."""
    entries = [(manifest.volumes[index], reason) for index, reason in chosen]
    return [
        Card(entry, reason, draw_card(open_volume(manifest, entry, store, cache)))
        for entry, reason in track(entries, len(entries), "pictures")
    ]


def count_columns(channels: Channels) -> int:
    """Returns the number of pictures in a row of a card."""
    return max(channels.count + 1, _FEWEST_COLUMNS)


def draw_card(volume: Volume) -> Voxels:
    """Draws a volume as `Card.pixels`."""
    best = largest_tumour_slice(volume.truth[0])
    above = [
        _squared(draw_channel(volume, channel, best, _PANEL_PX))
        for channel in range(volume.channels.count)
    ]
    above.append(_outlined(volume, best))
    columns = count_columns(volume.channels)
    blank = np.full_like(above[0], 255)
    through = np.linspace(0, len(volume.image) - 1, columns + 2)[1:-1].round().astype(int)
    below = [_outlined(volume, index) for index in through]
    rows = [[*above, *[blank] * (columns - len(above))], below]
    gap = ((_GAP_PX, 0), (_GAP_PX, 0), (0, 0))
    padded = [[np.pad(panel, gap, constant_values=255) for panel in row] for row in rows]
    return np.concatenate([np.concatenate(row, axis=1) for row in padded])[_GAP_PX:, _GAP_PX:]


def _candidates(measures: Measures, outliers: Sequence[Outlier]) -> Iterator[tuple[int, str]]:
    tumour = measures.tumour_pixels
    ranked = [int(index) for index in np.argsort(tumour, kind="stable") if tumour[index] > 0]
    if ranked:
        yield ranked[len(ranked) // 2], "median tumour"
        yield ranked[-1], "largest tumour"
        yield ranked[0], "smallest tumour"
    yield from _first(tumour == 0, "no tumour")
    yield int(measures.slices.argmax()), "most slices"
    yield int(measures.slices.argmin()), "fewest slices"
    for outlier in outliers:
        if outlier.measure != "slices":
            yield from _first(measures.volume == outlier.volume, f"outlier ({outlier.measure})")
            break
    yield from _first(measures.lacks_sequence, "lacks a sequence")
    if ranked:
        yield ranked[len(ranked) // 4], "tumour at the lower quartile"
        yield ranked[3 * len(ranked) // 4], "tumour at the upper quartile"


def _first(condition: Mask, reason: str) -> Iterator[tuple[int, str]]:
    if condition.any():
        yield int(condition.argmax()), reason


def _outlined(volume: Volume, index: int) -> Voxels:
    volume = replace(volume, targets=volume.targets[:1])
    return _squared(draw_slice(volume, None, index, _PANEL_PX))


def _squared(drawn: Voxels) -> Voxels:
    """Centers a slice in a black square."""
    height, width = drawn.shape[:2]
    down, right = _PANEL_PX - height, _PANEL_PX - width
    return np.pad(drawn, ((down // 2, -(-down // 2)), (right // 2, -(-right // 2)), (0, 0)))

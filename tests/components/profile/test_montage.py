import numpy as np
import pytest

from components.profile.measures import measure
from components.profile.montage import choose_volumes, draw_card, make_cards
from components.profile.outliers import Outlier
from components.shared.dataset.channels import Channels
from components.shared.dataset.manifest import make_manifest
from components.shared.dataset.volumes import Volume, volume_key
from components.shared.errors import UserError
from components.shared.report.overlay import TRUTH_COLOR
from components.shared.storage.store import FolderStore


@pytest.fixture
def volume():
    """A dim head with a bright square of tumour in slice 3 of 8."""
    image = np.full((8, 60, 90, 3), 40, np.uint8)
    mask = np.zeros((8, 60, 90), np.uint8)
    image[3, 20:40, 30:60], mask[3, 20:40, 30:60] = 200, 1
    mask[4, 25:30, 35:40] = 1
    return Volume(image, mask)


def panel(card, row, column):
    return card[row * 164 : row * 164 + 160, column * 164 : column * 164 + 160]


def is_green(pixels):
    return (pixels == TRUTH_COLOR).all(axis=-1)


@pytest.mark.parametrize(("channels", "columns"), [(1, 4), (2, 4), (3, 4), (4, 5), (5, 6)])
def test_a_card_has_two_rows_of_panels(volume, channels, columns):
    names = tuple(f"T{number}" for number in range(channels))
    image = volume.image[..., :1].repeat(channels, axis=-1)
    card = draw_card(Volume(image, volume.mask, Channels(names=names, reference="T0")))
    assert card.shape == (2 * 160 + 4, columns * 160 + (columns - 1) * 4, 3)
    assert card.dtype == np.uint8
    assert is_green(panel(card, 0, channels)).any()
    framed = [panel(card, 0, column).min() == 0 for column in range(columns)]
    assert framed == [column <= channels for column in range(columns)]  # others are blank


def test_the_outline_surrounds_the_tumour(volume):
    green = is_green(panel(draw_card(volume), 0, 3))
    rows, columns = np.nonzero(green)
    # 90 pixels wide, drawn on 160; 60 high, in the middle of the square
    scale, top = 160 / 90, (160 - 60 * 160 / 90) / 2
    line = 2  # drawn outside
    edges = np.array([20 * scale + top, 40 * scale + top, 30 * scale, 60 * scale])
    edges += (-line, line, -line, line)
    found = (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1)
    np.testing.assert_allclose(found, edges, atol=1.5)
    # nothing inside of it
    assert not green[rows.min() + 3 : rows.max() - 2, columns.min() + 3 : columns.max() - 2].any()


def test_channels_are_shown_without_outline(volume):
    card = draw_card(volume)
    assert not any(is_green(panel(card, 0, column)).any() for column in range(3))
    assert panel(card, 0, 0).max() == 255


def test_a_volume_without_tumour_shows_its_middle(volume):
    image = np.zeros((9, 40, 40, 3), np.uint8)
    image[4] = 255
    card = draw_card(Volume(image, np.zeros((9, 40, 40), np.uint8)))
    assert panel(card, 0, 1).min() == 255
    assert not is_green(card).any()


@pytest.mark.parametrize("shape", [(1, 5, 3), (2, 300, 10), (3, 1, 1)])
def test_draws_volumes_of_any_size(shape):
    card = draw_card(Volume(np.ones((*shape, 3), np.uint8), np.ones(shape, np.uint8)))
    assert card.shape == (324, 652, 3)


def test_picks_typical_and_extreme_volumes(make_entry):
    pixels = [500, 0, 9000, 100, 5000]
    data = make_manifest(
        make_entry(number, slices=20 + number, tumour_slices=3, tumour_pixels=count)
        for number, count in enumerate(pixels)
    )
    chosen = dict(choose_volumes(measure(data), [], 20))
    assert chosen[2].startswith("largest tumour")
    assert chosen[3].startswith("smallest tumour")
    assert chosen[1] == "no tumour"
    assert chosen[4].startswith("median tumour, most slices")
    assert chosen[0].startswith("fewest slices")


def test_picks_the_strongest_outlier_and_a_volume_that_lacks_a_sequence(make_data):
    data = make_data(30)
    entries = list(data.volumes)
    entries[7] = entries[7].model_copy(update={"missing": ("pre-contrast",)})
    data = make_manifest(entries)
    outliers = [
        Outlier(volume=name, measure=what, value=1, usual_low=2, usual_high=3, score=-9)
        for name, what in ((entries[3].volume, "slices"), (entries[5].volume, "FLAIR: median"))
    ]
    chosen = dict(choose_volumes(measure(data), outliers, 20))
    assert chosen[5] == "outlier (FLAIR: median)"
    assert chosen[7] == "lacks a sequence"


@pytest.mark.parametrize("count", [0, 1, 4])
def test_picks_no_more_than_asked_and_no_volume_twice(make_data, count):
    chosen = choose_volumes(measure(make_data(30)), [], count)
    assert len(chosen) == len({index for index, _ in chosen}) == count


def test_reads_only_what_is_shown(volume, make_blob, publish, tmp_path):
    store = FolderStore(tmp_path)
    data = publish(store, [volume, make_blob(1)])
    store.delete(volume_key(data.volumes[1].digest))
    (card,) = make_cards(data, [(0, "typical")], store, tmp_path / "cache")
    np.testing.assert_array_equal(card.pixels, draw_card(volume))
    with pytest.raises(UserError, match="lacks volume"):
        make_cards(data, [(1, "not stored")], store, tmp_path / "cache")

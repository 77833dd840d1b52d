"""Turns of arrays to axial slices."""

import itertools

import numpy as np
import pytest

from components.shared.reading.axial import Turn, check_same_grid, turn_axial
from components.shared.reading.scans import BadScanError

SHAPE = (3, 4, 5)


def stored(axes, signs):
    """An affine whose axis k points along `axes[k]` of LPS."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[world, axis] = sign * (axis + 1)
    return affine


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (-1, -1, -1)])
def test_every_voxel_stays_at_its_place(axes, signs):
    voxels = np.arange(60).reshape(SHAPE)
    affine = stored(axes, signs)
    found = turn_axial(voxels, affine)
    directions = found.geometry.matrix[:3, :3]
    assert (directions[[2, 1, 0], [0, 1, 2]] > 0).all()  # up, to the back, to the left
    for place in [(0, 0, 0), tuple(length - 1 for length in found.voxels.shape)]:
        before = np.argwhere(voxels == found.voxels[place])[0]
        assert found.geometry.matrix @ (*place, 1) == pytest.approx(affine @ (*before, 1))
    assert np.array_equal(Turn.of_affine(affine).undo(found.voxels), voxels)


@pytest.mark.parametrize(
    ("affine", "reason"),
    [
        (np.diag([0.0, 1, 1, 1]), "singular"),
        (np.array([[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "sheared by"),
        (np.diag([1.0, 5, 1, 1]), "not acquired in axial slices"),
    ],
)
def test_an_image_without_axial_slices_is_refused(affine, reason):
    with pytest.raises(BadScanError, match=reason):
        turn_axial(np.zeros(SHAPE), affine)


def test_another_grid_is_refused_with_its_distance():
    one, moved = np.eye(4), np.eye(4)
    moved[0, 3] = 0.58
    image = turn_axial(np.zeros(SHAPE), one)
    check_same_grid(turn_axial(np.zeros(SHAPE), one + 1e-6), image, "label", "FLAIR")
    with pytest.raises(BadScanError, match=r"label lies on another grid than FLAIR: .*0\.58 mm"):
        check_same_grid(turn_axial(np.zeros(SHAPE), moved), image, "label", "FLAIR")

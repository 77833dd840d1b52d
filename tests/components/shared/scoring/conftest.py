"""Scores of small volumes."""

import numpy as np
import pytest

from components.ingest.entry import describe_volume
from components.shared.dataset.geometry import Geometry
from components.shared.dataset.volumes import Volume, encode_volume
from components.shared.reading.tcga import parse_scan_name
from components.shared.scoring.scores import score_volume


@pytest.fixture(scope="session")
def score():
    """Scores a probability against a mask; the whole image is head unless one is given.

    With a spacing the voxels have millimeters.
    """

    def score(truth, probability, name="TCGA_CS_0001_20000101", image=None, spacing_mm=None):
        mask = np.asarray(truth, dtype=np.uint8)
        if image is None:
            image = np.full((*mask.shape, 3), 100, dtype=np.uint8)
        geometry = spacing_mm and Geometry.of_affine(np.diag([*spacing_mm, 1]))
        volume = Volume(image, mask, geometry=geometry)
        entry = describe_volume(parse_scan_name(name), volume, encode_volume(volume))
        probability = np.asarray(probability, dtype=np.float32)
        return score_volume(entry, volume, probability, probability >= 0.5)

    return score


@pytest.fixture(scope="session")
def some_scores(score):
    """Scores of patients at three sites, the first without tumour."""

    def some_scores(count=7, seed=0, shape=(3, 6, 5)):
        random = np.random.default_rng(seed)
        scores = []
        for index in range(count):
            truth = random.random(shape) < 0.1 * index
            probability = np.clip(truth * 0.6 + random.random(shape) * 0.6, 0, 1)
            site = ("CS", "DU", "HT")[index % 3]
            scores.append(score(truth, probability, f"TCGA_{site}_000{index}_20000101"))
        return scores

    return some_scores

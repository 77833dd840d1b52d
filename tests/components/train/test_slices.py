import numpy as np
import torch

from components.train.network import build_segmenter, with_neighbours
from components.train.slices import SliceDataset, TumourSampler, prepare_volumes


def test_slices_have_the_neighbours_that_prediction_uses(dataset, recipe):
    volumes = prepare_volumes(dataset, "train", build_segmenter(recipe))
    dataset = SliceDataset(volumes, recipe.context_slices)
    whole = torch.cat([with_neighbours(torch.from_numpy(np.array(v.images)), 1) for v in volumes])
    assert len(dataset) == len(whole)
    assert all(torch.equal(dataset[i][0], whole[i]) for i in range(len(whole)))


def test_volumes_are_prepared_once(dataset, recipe):
    segmenter = build_segmenter(recipe)
    prepare_volumes(dataset, "train", segmenter)
    files = {p: p.stat().st_mtime_ns for p in (dataset.cache / "prepared").glob("*/*")}
    prepare_volumes(dataset, "train", segmenter)
    assert len(files) == 4 * 3
    assert files == {p: p.stat().st_mtime_ns for p in (dataset.cache / "prepared").glob("*/*")}


def test_masks_come_back_where_they_were(dataset, recipe):
    segmenter = build_segmenter(recipe.model_copy(update={"image_size": 64}))
    for volume in prepare_volumes(dataset, "train", segmenter):
        logits = torch.logit(torch.from_numpy(volume.masks)[:, None] / 255, eps=1e-6)
        box = torch.from_numpy(volume.box)
        back = segmenter.restore(logits, box, *volume.truth.shape[1:]).numpy() >= 0.5
        assert 2 * (back & volume.truth).sum() / (back.sum() + volume.truth.sum()) > 0.97


def test_an_epoch_draws_all_tumour_slices_and_the_share_of_others():
    has_tumour = np.arange(100) < 30
    sampler = TumourSampler(has_tumour, tumour_share=0.6, seed=0)
    drawn = list(sampler)
    assert len(drawn) == len(set(drawn)) == len(sampler) == 50
    assert set(range(30)) <= set(drawn)


def test_the_order_depends_on_seed_and_epoch_alone():
    has_tumour = np.arange(40) % 3 == 0
    one, two = (TumourSampler(has_tumour, 0.5, seed=3) for _ in range(2))
    one.set_epoch(5)
    two.set_epoch(5)
    assert list(one) == list(two)
    two.set_epoch(6)
    assert list(one) != list(two)

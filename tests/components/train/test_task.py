from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from components.shared.dataset.channels import LGG_TARGETS
from components.shared.model.network import build_segmenter
from components.shared.scoring.decision import find_tumour
from components.train.data.slices import prepare_volumes
from components.train.fit import deal_out
from components.train.task import SegmentationTask, step_seed
from tests.components.conftest import REGIONS


class Alone(SegmentationTask):
    """Steps outside of a trainer; keeps what is logged and stands at a step of a process."""

    step, rank, ranks, accumulate, epoch = 0, 0, 1, 1, 0

    @property
    def trainer(self):
        return SimpleNamespace(accumulate_grad_batches=self.accumulate, world_size=self.ranks)

    @property
    def current_epoch(self):
        return self.epoch

    @property
    def global_step(self):
        return self.step

    @property
    def global_rank(self):
        return self.rank

    def log(self, name, value, **_):
        self.logged = {**getattr(self, "logged", {}), name: float(value.detach())}


@pytest.fixture
def task(recipe):
    return _task(recipe)


def _task(recipe, targets=LGG_TARGETS):
    torch.manual_seed(0)
    return Alone(
        build_segmenter(recipe.network, targets=targets),
        recipe,
        micro_batch=4,
    )


class Seen(nn.Module):
    """In the network's place: keeps what it is shown, and after dropout."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Identity()
        self.dropout = nn.Dropout(0.5)
        self.images, self.dropped = [], []

    def forward(self, images):
        self.images.append(images)
        self.dropped.append(self.dropout(torch.ones(1000)))
        return images[:, :1]


@pytest.fixture
def seen(task):
    task.segmenter.network = Seen()
    return task.segmenter.network


def _batch(slices=8):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((slices, 9, 32, 32), generator=generator).half()
    masks = (torch.rand((slices, 1, 32, 32), generator=generator) > 0.5).float()
    return images, masks, torch.arange(slices)


def _step(task, step, batch=None, index=0):
    task.step = step
    return task.training_step(batch or _batch(), index).item()


def test_the_chance_of_a_step_is_its_own_and_repeats(task):
    task.eval()  # weights and running statistics stay
    torch.manual_seed(99)
    first = _step(task, 3)
    assert _step(task, 4) != first
    assert _step(task, 3) == first


def test_a_phase_may_change_slices_in_a_way_of_its_own(make_recipe):
    still = {"rotation_degrees": 0, "scale_factor": 0, "modality_dropout_prob": 0}
    schedule = {"phases": [{}, {"augmentation": {**still, "intensity_shift": 0}}]}
    task = _task(make_recipe(schedule=schedule))
    task.segmenter.network = Seen()
    for task.epoch, changed in ((0, True), (3, False)):
        _step(task, 3)
        pairs = zip(task.segmenter.network.images[-1], _batch()[0].float(), strict=True)
        kept = [_is_slice_or_mirror_image(seen, given) for seen, given in pairs]
        assert (any(kept), all(kept)) == (not changed, not changed)


def _is_slice_or_mirror_image(seen, given):
    return any(torch.allclose(seen, each, atol=1e-4) for each in (given, given.flip(2)))


def _dealt_out(task, ranks, accumulate):
    """What the network sees of a step that is dealt out, as TumourSampler deals."""
    task.ranks, task.accumulate = ranks, accumulate
    for index in range(accumulate):
        part = slice(8 // accumulate * index, 8 // accumulate * (index + 1))
        for task.rank in range(ranks):
            _step(task, 3, [tensor[part][task.rank :: ranks] for tensor in _batch()], index)


@pytest.mark.parametrize(("ranks", "accumulate"), [(2, 1), (1, 4), (2, 2), (4, 2)])
def test_a_slice_is_changed_alike_however_its_step_is_dealt_out(task, seen, ranks, accumulate):
    _step(task, 3)
    (whole,) = seen.images
    seen.images.clear()
    _dealt_out(task, ranks, accumulate)
    in_turns = [
        image
        for at_once in range(0, len(seen.images), ranks)
        for turn in zip(*seen.images[at_once : at_once + ranks], strict=True)
        for image in turn
    ]
    torch.testing.assert_close(torch.stack(in_turns), whole, rtol=0, atol=0)


def test_no_two_micro_batches_and_processes_drop_the_same(task, seen):
    _dealt_out(task, ranks=2, accumulate=2)
    assert len({tuple(dropped.tolist()) for dropped in seen.dropped}) == 4


def test_the_seeds_of_a_single_process_stay_as_they_were():
    assert step_seed(7, 11, 0) == 7 * 1_000_003 + 11


def test_seeds_of_many_processes_differ_in_the_bits_that_the_cpu_takes():
    seeds = [step_seed(2**32 - 1, step, stream) for stream in range(64) for step in range(2000)]
    assert len({seed % 2**32 for seed in seeds}) == len(seeds)
    assert max(seeds) < 2**64


def _validate(task, *volumes):
    task.eval()
    with torch.inference_mode():
        task.on_validation_epoch_start()
        for index, volume in enumerate(volumes):
            arrays = volume and (*volume, np.ones(()))[:5]
            task.validation_step(arrays and tuple(map(torch.from_numpy, arrays)), index)
        task.on_validation_epoch_end()


@pytest.mark.parametrize("tumour", [True, False])
def test_validation_measures_whole_volumes_at_full_size(task, dataset, tumour):
    (volume,) = prepare_volumes(dataset, "validation", task.segmenter)
    truth = volume.label_map * tumour
    _validate(task, (volume.images, volume.box, volume.masks, truth))
    with torch.inference_mode():
        image = torch.from_numpy(dataset.volume(volume.entry).image)
        predicted = (task.segmenter(image) >= 0.5).numpy()
    dice = 2 * (predicted & (truth > 0)).sum() / (predicted.sum() + truth.sum())
    assert task.logged["validation_dice"] == pytest.approx(float(dice), abs=5e-3)
    assert task.logged["validation_loss"] > 0


def test_a_validation_takes_no_more_slices_at_once_than_a_step(task, seen, dataset):
    (volume,) = prepare_volumes(dataset, "validation", task.segmenter)
    _validate(task, (volume.images, volume.box, volume.masks, volume.label_map))
    assert [len(images) for images in seen.images] == [4, 2]


def test_with_test_time_flip_a_validation_asks_for_mirror_images_too(make_recipe, dataset):
    task = _task(make_recipe(network={"test_time_flip": True}))
    task.segmenter.network = Seen()
    (volume,) = prepare_volumes(dataset, "validation", task.segmenter)
    _validate(task, (volume.images, volume.box, volume.masks, volume.label_map))
    slices, mirrored = task.segmenter.network.images[:2]
    torch.testing.assert_close(mirrored, slices.flip(3), rtol=0, atol=0)


class Bright(nn.Module):
    """In the network's place: calls tumour what is bright, in many parts."""

    def forward(self, images):
        return images[:, 4:5]


def test_a_validation_leaves_out_what_the_exported_model_will(make_recipe, dataset):
    measured = []
    for fraction in (0, 1):
        task = _task(make_recipe(network={"min_component_fraction": fraction}))
        task.segmenter.network = Bright()
        (volume,) = prepare_volumes(dataset, "validation", task.segmenter)
        _validate(task, (volume.images, volume.box, volume.masks, volume.label_map))
        with torch.inference_mode():
            image = torch.from_numpy(dataset.volume(volume.entry).image)
            mask = find_tumour(task.segmenter(image).numpy(), 0.5, fraction)
        dice = 2 * (mask & (volume.label_map > 0)).sum() / (mask.sum() + volume.label_map.sum())
        assert task.logged["validation_dice"] == pytest.approx(float(dice), abs=5e-3)
        measured.append(float(dice))
    assert abs(measured[1] - measured[0]) > 0.02


def test_an_empty_mask_that_is_left_empty_is_right(task, dataset):
    (volume,) = prepare_volumes(dataset, "validation", task.segmenter)
    task.segmenter.network.segmentation_head[0].bias.data.fill_(-100)
    _validate(task, (volume.images, volume.box, volume.masks * 0, volume.label_map * 0))
    assert task.logged["validation_dice"] == 1


def test_a_validation_is_the_mean_over_volumes_whatever_else_others_have(task, dataset):
    volumes = [
        (volume.images, volume.box, volume.masks, volume.label_map)
        for volume in prepare_volumes(dataset, "train", task.segmenter)
    ]
    losses = []
    for volume in volumes:
        _validate(task, volume)
        losses.append(task.logged["validation_loss"])
    _validate(task, *volumes, None)
    assert task.logged["validation_loss"] == pytest.approx(sum(losses) / len(losses))


def test_scans_of_a_patient_count_as_one(task, dataset):
    once, *twice = prepare_volumes(dataset, "train", task.segmenter)[:3]
    same = [replace(one, entry=twice[0].entry.model_copy(update={"patient": "p"})) for one in twice]
    losses = []
    for volume in (once, *twice):
        _validate(task, *deal_out([volume], rank=0, ranks=1))
        losses.append(task.logged["validation_loss"])
    _validate(task, *deal_out([once, *same], rank=0, ranks=1))
    expected = (losses[0] + sum(losses[1:]) / 2) / 2
    assert task.logged["validation_loss"] == pytest.approx(expected)


def test_each_target_has_a_dice_of_its_own(make_recipe, dataset):
    task = _task(make_recipe(), targets=REGIONS)
    task.segmenter.network = Regions()
    (volume,) = prepare_volumes(dataset, "validation", task.segmenter)
    label_map = volume.label_map.copy()
    label_map[:, ::2] *= 3  # half of the tumour is enhancing
    masks = volume.masks.repeat(3, axis=1)
    _validate(task, (volume.images, volume.box, masks, label_map))
    each = [task.logged[f"{target.name}/validation_dice"] for target in REGIONS]
    assert task.logged["validation_dice"] == pytest.approx(sum(each) / 3)
    with torch.inference_mode():
        found = task.segmenter(torch.from_numpy(dataset.volume(volume.entry).image)).numpy() >= 0.5
    for mask, target, dice in zip(found, REGIONS, each, strict=True):
        true = np.isin(label_map, target.labels)
        wanted = 2 * (mask & true).sum() / (mask.sum() + true.sum())
        assert dice == pytest.approx(float(wanted), abs=5e-3)
    assert len({round(dice, 2) for dice in each}) == 3


class Regions(nn.Module):
    """In the network's place: three channels of an image, each brighter than the one before."""

    def forward(self, images):
        return torch.cat([images[:, 4:5], images[:, 4:5] - 0.5, images[:, 4:5] - 1], dim=1)

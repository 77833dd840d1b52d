import pytest
import torch

from components.train.network import build_segmenter
from components.train.slices import prepare_volumes
from components.train.task import SegmentationTask, step_seed


class Alone(SegmentationTask):
    """Steps outside of a trainer; keeps what is logged and stands at a step of a process."""

    step, rank = 0, 0

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
    torch.manual_seed(0)
    return Alone(
        build_segmenter(recipe.network),
        augmentation=recipe.augmentation,
        optimiser=recipe.optimiser,
        seed=recipe.seed,
    )


def _loss(task, step, rank=0):
    task.step, task.rank = step, rank
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((4, 9, 32, 32), generator=generator).half()
    masks = (torch.rand((4, 1, 32, 32), generator=generator) > 0.5).float()
    task.eval()  # weights and running statistics stay
    return float(task.training_step((images, masks, torch.arange(4)), 0))


def test_the_chance_of_a_step_is_its_own_and_repeats(task):
    torch.manual_seed(99)
    first = _loss(task, 3)
    assert _loss(task, 4) != first
    assert _loss(task, 3) == first


def test_no_two_processes_draw_the_same(task):
    """The augmentation was once equal on all of them."""
    assert len({_loss(task, 3, rank) for rank in range(4)}) == 4


def test_the_seeds_of_a_single_process_stay_as_they_were():
    assert step_seed(7, 11, 0) == 7 * 1_000_003 + 11


def test_seeds_of_many_processes_differ_in_the_bits_that_the_cpu_takes():
    seeds = [step_seed(2**32 - 1, step, rank) for rank in range(64) for step in range(2000)]
    assert len({seed % 2**32 for seed in seeds}) == len(seeds)
    assert max(seeds) < 2**64


@pytest.mark.parametrize("tumour", [True, False])
def test_validation_measures_whole_volumes_at_full_size(task, dataset, tumour):
    (volume,) = prepare_volumes(dataset, "validation", task.segmenter)
    truth = torch.from_numpy(volume.truth) * tumour
    arrays = (volume.images, volume.box, volume.masks)
    task.eval()
    with torch.inference_mode():
        task.validation_step((*map(torch.from_numpy, arrays), truth), 0)
        image = torch.from_numpy(dataset.volume(volume.entry).image)
        predicted = task.segmenter(image) >= 0.5
    dice = 2 * (predicted & truth.bool()).sum() / (predicted.sum() + truth.sum())
    assert task.logged["validation_dice"] == pytest.approx(float(dice), abs=5e-3)
    assert task.logged["validation_loss"] > 0


def test_an_empty_mask_that_is_left_empty_is_right(task, dataset):
    (volume,) = prepare_volumes(dataset, "validation", task.segmenter)
    arrays = (volume.images, volume.box, volume.masks * 0, volume.truth * 0)
    task.eval()
    task.segmenter.network.segmentation_head[0].bias.data.fill_(-100)
    with torch.inference_mode():
        task.validation_step(tuple(map(torch.from_numpy, arrays)), 0)
    assert task.logged["validation_dice"] == 1

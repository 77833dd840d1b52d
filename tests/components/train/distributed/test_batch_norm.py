from types import SimpleNamespace

import lightning
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from components.shared.model.network import build_segmenter
from components.train.checkpoints import Checkpoints
from components.train.data.slices import prepare_volumes
from components.train.distributed import batch_norm
from components.train.distributed.batch_norm import CpuSyncBatchNorm, batch_norm_over_processes
from components.train.fit import fit


@pytest.fixture
def twins(monkeypatch):
    """Two processes that have equal batches: each sum is twice its own."""
    monkeypatch.setattr(batch_norm, "count_processes", lambda: 2)
    monkeypatch.setattr(batch_norm, "sum_over_processes", lambda value: 2 * value)


def _network(norm):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3), norm(5), nn.Conv2d(5, 2, 1))


def _images():
    torch.manual_seed(1)
    # with a large mean: a variance as the difference of two sums would be wrong
    return 1000 + torch.randn(4, 3, 9, 9)


def _train(network, images, *, synchronized):
    """Gradients and state after a forward and a backward pass."""
    if synchronized:
        with CpuSyncBatchNorm():
            output = network(images)
    else:
        output = network(images)
    (
        output * torch.linspace(-1, 1, output[0].numel()).view(output[0].shape)
    ).square().mean().backward()
    gradients = {f"gradient of {name}": each.grad for name, each in network.named_parameters()}
    return {"output": output.detach(), **gradients, **network.state_dict()}


def _assert_as_exact(ours, plain, exact):
    """Torch in float32 misses some gradients by 1 %: see how far both are from float64."""
    assert ours.keys() == plain.keys()
    for name, value in exact.items():
        if not value.is_floating_point():
            assert torch.equal(ours[name], value)
            continue
        error, allowed = ((found[name] - value).abs().max() for found in (ours, plain))
        assert error <= 3 * allowed + 1e-6, name


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, timm.layers.BatchNormAct2d])
def test_a_process_alone_normalizes_as_torch_does(norm):
    exact = _train(_network(norm).double(), _images().double(), synchronized=False)
    plain = _train(_network(norm), _images(), synchronized=False)
    _assert_as_exact(_train(_network(norm), _images(), synchronized=True), plain, exact)


def test_processes_normalize_as_one_that_has_all_their_batches(twins):
    twice = torch.cat([_images(), _images()])
    exact = _train(_network(nn.BatchNorm2d).double(), twice.double(), synchronized=False)
    plain = _train(_network(nn.BatchNorm2d), twice, synchronized=False)
    half = _train(_network(nn.BatchNorm2d), _images(), synchronized=True)
    for whole in (exact, plain):
        whole["output"] = whole["output"][:4]
    _assert_as_exact(half, plain, exact)


def test_half_precision_is_normalized_in_single_precision():
    torch.manual_seed(0)
    images = (3 + torch.randn(8, 4, 16, 16)).bfloat16()
    norm = nn.BatchNorm2d(4)
    with CpuSyncBatchNorm():
        normal = norm(images)
    assert normal.dtype == torch.bfloat16
    expected = functional.batch_norm(images.float(), None, None, training=True)
    torch.testing.assert_close(normal.float(), expected, rtol=0, atol=0.02)


def test_a_network_that_does_not_train_is_left_alone():
    network = _network(nn.BatchNorm2d).eval()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    plain = network(_images())
    with CpuSyncBatchNorm():
        assert torch.equal(network(_images()), plain)
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name])


def test_a_layer_without_weights_and_running_statistics():
    norm = nn.BatchNorm2d(4, affine=False, track_running_stats=False)
    images = _images()[:, :1].expand(-1, 4, -1, -1)
    expected = norm(images)
    with CpuSyncBatchNorm():
        torch.testing.assert_close(norm(images), expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(("device", "own"), [("cpu", True), ("cuda", False)])
def test_ours_is_used_only_where_torch_has_none(twins, device, own):
    assert isinstance(batch_norm_over_processes(torch.device(device)), CpuSyncBatchNorm) == own


def test_a_process_alone_needs_neither():
    assert not isinstance(batch_norm_over_processes(torch.device("cpu")), CpuSyncBatchNorm)


class FakeTrainer(SimpleNamespace):
    """Two processes with a GPU each, which learn one running mean."""

    def __init__(self, checkpoints):
        super().__init__(world_size=2, global_rank=0, checkpoints=checkpoints)

    def fit(self, task, *_, **__):
        self.segmenter = task.segmenter
        network = task.segmenter.network
        self.norms = [
            m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)
        ]
        self.norms[0].running_mean.fill_(7)
        self.checkpoints.write_last(self)
        self.checkpoints.store(epoch=1, best=network.state_dict())

    def save_checkpoint(self, path, *, weights_only):
        torch.save({}, path)


def test_gpus_train_with_torchs_layers_and_the_result_has_none(
    monkeypatch, make_recipe, dataset, tmp_path
):
    """The structure only: torch's layers refuse to run without a GPU."""
    acting = {
        "encoder": "tu-test_efficientnet",
        "encoder_depth": 4,
        "decoder_channels": (8, 8, 8, 8),
    }
    recipe = make_recipe(network=acting, compute={"device": "cuda"})
    segmenter = build_segmenter(recipe.network)
    names = list(segmenter.state_dict())
    checkpoints = Checkpoints(dataset.store, "gpus", tmp_path / "work")
    trainer = FakeTrainer(checkpoints)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(lightning, "Trainer", lambda **_: trainer)
    volumes = prepare_volumes(dataset, "train", segmenter)
    fitted = fit(recipe, segmenter, volumes, volumes, checkpoints, lambda _: None)
    sync = nn.SyncBatchNorm
    assert trainer.norms
    assert all(isinstance(layer, sync) for layer in trainer.norms)
    assert any(isinstance(getattr(layer, "act", None), nn.SiLU) for layer in trainer.norms)
    assert list(trainer.segmenter.state_dict()) == names
    assert not any(isinstance(layer, sync) for layer in fitted.segmenter.modules())
    assert list(fitted.segmenter.state_dict()) == names
    for name, value in trainer.segmenter.state_dict().items():
        assert torch.equal(fitted.segmenter.state_dict()[name], value), name

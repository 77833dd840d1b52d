import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from components.shared.dataset.channels import Channels, Target
from components.shared.model import preparation
from components.shared.model.network import VolumeSegmenter, build_segmenter, with_neighbours
from components.shared.model.settings import Network
from components.train.data import slices
from components.train.data.carvemix import LARGEST_MARGIN, LEAST_MARGIN, paste_tumour
from components.train.data.slices import (
    Draw,
    SliceDataset,
    TumourSampler,
    prepare_volumes,
)
from pipelines.settings.presets import load_preset
from tests.components.conftest import REGIONS

_ARRAYS = ("images", "box", "masks")


def test_slices_have_the_neighbours_that_prediction_uses(dataset, recipe):
    volumes = prepare_volumes(dataset, "train", build_segmenter(recipe.network))
    dataset = SliceDataset(volumes, recipe.network.context_slices)
    whole = torch.cat([with_neighbours(torch.from_numpy(np.array(v.images)), 1) for v in volumes])
    assert len(dataset) == len(whole)
    assert all(torch.equal(dataset[Draw(i)][0], whole[i]) for i in range(len(whole)))


def test_a_slice_says_which_it_is_and_its_volume_is_known(dataset, recipe):
    volumes = prepare_volumes(dataset, "train", build_segmenter(recipe.network))
    slices = SliceDataset(volumes, 0)
    number = 0
    for volume in volumes:
        for position in range(volume.entry.slices):
            _, mask, (index, donor) = slices[Draw(number)]
            assert index == donor
            assert slices.volume_of(int(index)) == volume.entry.volume
            assert np.array_equal(mask * 255, volume.masks[position])
            number += 1
    assert number == len(slices)


def test_volumes_are_prepared_once(dataset, recipe):
    segmenter = build_segmenter(recipe.network)
    prepare_volumes(dataset, "train", segmenter)
    files = {p: p.stat().st_mtime_ns for p in (dataset.cache / "prepared").glob("*/*")}
    prepare_volumes(dataset, "train", segmenter)
    assert len(files) == 4 * 4
    assert files == {p: p.stat().st_mtime_ns for p in (dataset.cache / "prepared").glob("*/*")}


def test_masks_come_back_where_they_were(dataset, make_recipe):
    segmenter = build_segmenter(make_recipe(network={"image_size": 64}).network)
    for volume in prepare_volumes(dataset, "train", segmenter):
        logits = torch.logit(torch.from_numpy(volume.masks) / 255, eps=1e-6)
        box = torch.from_numpy(volume.box)
        back = segmenter.restore(logits, box, *volume.label_map.shape[1:])[:, 0].numpy() >= 0.5
        assert 2 * (back & volume.truth[0]).sum() / (back.sum() + volume.truth.sum()) > 0.97


def test_an_epoch_draws_all_tumour_slices_and_the_share_of_others():
    has_tumour = np.arange(100) < 30
    sampler = TumourSampler(has_tumour, foreground_fraction=0.6, seed=0)
    drawn = [draw.index for draw in sampler]
    assert len(drawn) == len(set(drawn)) == len(sampler) == 50
    assert set(range(30)) <= set(drawn)


def test_the_order_depends_on_seed_and_epoch_alone():
    has_tumour = np.arange(40) % 3 == 0
    one, two = (TumourSampler(has_tumour, foreground_fraction=0.5, seed=3) for _ in range(2))
    one.set_epoch(5)
    two.set_epoch(5)
    assert list(one) == list(two)
    two.set_epoch(6)
    assert list(one) != list(two)


def test_the_share_of_an_epoch_gets_tumours_of_other_slices():
    has_tumour = np.arange(1000) % 3 == 0
    fractions = {0: 0.0, 1: 0.4, 2: 1.0}
    sampler = TumourSampler(
        has_tumour, foreground_fraction=0.6, seed=0, carvemix_prob=lambda epoch: fractions[epoch]
    )
    plain = TumourSampler(has_tumour, foreground_fraction=0.6, seed=0)
    for epoch, fraction in fractions.items():
        sampler.set_epoch(epoch)
        plain.set_epoch(epoch)
        drawn = list(sampler)
        assert [draw.index for draw in drawn] == [draw.index for draw in plain]
        given = [draw for draw in drawn if draw.donor is not None]
        assert len(given) / len(drawn) == pytest.approx(fraction, abs=0.06)
        assert all(has_tumour[draw.donor] for draw in given)
        assert all(LEAST_MARGIN <= draw.margin <= LARGEST_MARGIN for draw in given)


def test_a_slice_with_a_donor_shows_both(dataset, recipe):
    volumes = prepare_volumes(dataset, "train", build_segmenter(recipe.network))
    slices = SliceDataset(volumes, recipe.network.context_slices)
    host, donor = np.flatnonzero(~slices.has_tumour)[0], np.flatnonzero(slices.has_tumour)[-1]
    alone, given = slices[Draw(host)], slices[Draw(donor)]
    image, mask, indices = slices[Draw(host, donor, LEAST_MARGIN)]
    wanted = paste_tumour(*alone[:2], *given[:2], LEAST_MARGIN)
    assert torch.equal(image, wanted[0])
    assert torch.equal(mask, wanted[1])
    assert mask.sum() > 0 == alone[1].sum()
    assert indices.tolist() == [host, donor]


def test_processes_deal_the_slices_of_one_process_out_among_themselves():
    has_tumour = np.arange(101) % 3 == 0
    settings = {"foreground_fraction": 0.6, "seed": 1, "carvemix_prob": lambda _: 0.5}
    alone = TumourSampler(has_tumour, **settings)
    dealt = [TumourSampler(has_tumour, **settings, rank=rank, ranks=3) for rank in range(3)]
    for epoch in range(2):
        for sampler in (alone, *dealt):
            sampler.set_epoch(epoch)
        assert {len(list(sampler)) for sampler in dealt} == {len(alone) // 3} == {len(dealt[0])}
        in_turns = [index for step in zip(*dealt, strict=True) for index in step]
        assert in_turns == list(alone)[: len(in_turns)]


def _copy(volume):
    arrays = {name: np.array(getattr(volume, name)) for name in _ARRAYS}
    return replace(volume, **arrays)  # not mapped: the files are damaged below


def _files(dataset):
    return sorted((dataset.cache / "prepared").glob("*/*"))


def _same_arrays(ones, twos):
    return all(
        np.array_equal(getattr(one, name), getattr(two, name))
        for one, two in zip(ones, twos, strict=True)
        for name in _ARRAYS
    )


@pytest.mark.parametrize("damage", ["zeroed", "cut", "removed", "bit"])
@pytest.mark.parametrize("name", ["images.npy", "box.npy", "masks.npy", "digests.json"])
def test_changed_prepared_files_are_made_anew(dataset, recipe, caplog, name, damage):
    """Zeroed ones were once trained on without a word."""
    segmenter = build_segmenter(recipe.network)
    sound = [_copy(volume) for volume in prepare_volumes(dataset, "train", segmenter)]
    before = {path: path.read_bytes() for path in _files(dataset)}
    path = next(path for path in before if path.name == name)
    _damage(path, damage)
    again = prepare_volumes(dataset, "train", segmenter)
    assert caplog.text.count("are incomplete or changed; recreating them") == 1
    assert path.parent.name in caplog.text
    assert _same_arrays(again, sound)
    assert {path: path.read_bytes() for path in _files(dataset)} == before


def _damage(path, damage):
    data = path.read_bytes()
    changed = {
        "zeroed": data[:128] + bytes(len(data) - 128),
        "cut": data[:-1],
        "bit": data[:-1] + bytes([data[-1] ^ 1]),
    }
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(changed[damage])


def test_another_way_of_preparing_makes_other_files(dataset, recipe, monkeypatch):
    """Old files were once used on, unless somebody raised a number by hand."""
    segmenter = build_segmenter(recipe.network)
    prepare_volumes(dataset, "train", segmenter)
    assert len(_files(dataset)) == 4 * 4
    monkeypatch.setattr(preparation, "_CLIP_DEVIATIONS", 1.0)
    volumes = prepare_volumes(dataset, "train", segmenter)
    assert len(_files(dataset)) == 2 * 4 * 4
    assert max(np.abs(volume.images).max() for volume in volumes) <= 1
    prepare_volumes(dataset, "train", build_segmenter(Network(**_SMALLER)))
    assert len(_files(dataset)) == 3 * 4 * 4


@pytest.mark.parametrize("constant", ["_HEAD_LEVEL", "_BOX_LEVEL", "_BOX_MARGIN", "_PERCENTILES"])
def test_the_key_of_prepared_files_follows_each_part_of_the_preparation(monkeypatch, constant):
    network = {"encoder": "tu-test_resnet", "encoder_weights": "none", "image_size": 32}
    segmenter = build_segmenter(Network(**network, normalization="percentiles"))
    before = slices._preprocessing_digest(segmenter)
    changed = (0.2, 0.9) if constant == "_PERCENTILES" else 1.5 * getattr(preparation, constant)
    monkeypatch.setattr(preparation, constant, changed)
    assert slices._preprocessing_digest(segmenter) != before


# mean and deviation of each channel, the head's box, and the mean of the masks
_STATISTICS = {
    ("best", "network"): "-0.393 -0.285 -0.539 1.072 0.686 1.024 0.104 -0.1 0.787 0.945 0.128",
    ("buda2019", "network"): "0.138 0.099 0.061 0.894 0.737 0.835 0.104 -0.1 0.787 0.945 0.128",
    ("buda2019", "flair_network"): (
        "0.165 0.165 0.165 0.914 0.914 0.914 0.104 -0.1 0.787 0.945 0.128"
    ),
    ("quick", "network"): "-0.393 -0.285 -0.539 1.066 0.682 1.018 0.104 -0.1 0.787 0.945 0.128",
    ("report2020", "network"): "-0.932 -1.791 -0.596 1.192 0.261 1.218 0 0 1 1 0.095",
}


@pytest.mark.parametrize(("preset", "section"), _STATISTICS)
def test_slices_of_the_public_set_are_prepared_as_ever(preset, section):
    """Not by their digests: another CPU rounds the last bit of a float16 in another way."""
    network = load_preset(preset)["train"].networks[section]
    segmenter = VolumeSegmenter(torch.nn.Identity(), network)
    images, box, masks = slices._prepare(slices._small_volume(), segmenter)
    images = images.astype(np.float64)
    found = (*images.mean((0, 2, 3)), *images.std((0, 2, 3)), *box, masks.mean() / 255)
    wanted = [float(value) for value in _STATISTICS[preset, section].split()]
    assert found == pytest.approx(wanted, abs=1e-3)


def test_two_targets_of_the_same_voxels_have_masks_of_their_own(dataset, recipe):
    """One manifest may call label 1 the target, another label 2."""
    segmenter = build_segmenter(recipe.network)
    plain = prepare_volumes(dataset, "train", segmenter)
    changes = {"labels": {"oedema": 1, "core": 2}, "targets": (Target(name="core", labels=(2,)),)}
    other = replace(dataset, manifest=dataset.manifest.model_copy(update=changes))
    cored = prepare_volumes(other, "train", segmenter)
    assert all(volume.masks.any() and volume.truth.any() for volume in plain)
    assert not any(volume.masks.any() or volume.truth.any() for volume in cored)


def test_several_targets_are_prepared_as_each_one_alone(regions, recipe):
    segmenter = build_segmenter(recipe.network, targets=REGIONS)
    together = prepare_volumes(regions, "train", segmenter)
    for number, target in enumerate(REGIONS):
        manifest = regions.manifest.model_copy(update={"targets": (target,)})
        alone = prepare_volumes(replace(regions, manifest=manifest), "train", segmenter)
        for all_of_it, one in zip(together, alone, strict=True):
            np.testing.assert_array_equal(all_of_it.images, one.images)
            np.testing.assert_array_equal(all_of_it.masks[:, number], one.masks[:, 0])
            np.testing.assert_array_equal(all_of_it.truth[number], one.truth[0])
            assert one.masks.any()


def test_a_slice_with_any_of_the_targets_has_tumour(regions, recipe):
    segmenter = build_segmenter(recipe.network, targets=REGIONS)
    targets = tuple(Target(name=f"label {value}", labels=(value,)) for value in (3, 1, 2))
    manifest = regions.manifest.model_copy(update={"targets": targets})
    volumes = prepare_volumes(replace(regions, manifest=manifest), "train", segmenter)
    found = SliceDataset(volumes, 0)
    wanted = np.concatenate([volume.label_map.any(axis=(1, 2)) for volume in volumes])
    np.testing.assert_array_equal(found.has_tumour, wanted)
    assert sum(volume.truth[0].any(axis=(1, 2)).sum() for volume in volumes) < wanted.sum()
    _, masks, _ = found[Draw(int(wanted.argmax()))]
    assert masks.shape == (3, 32, 32)


def test_the_key_of_prepared_files_follows_channels_type_and_targets():
    network = Network(**_SMALLER, normalization="head", sequences="reference")
    names = ("a", "b", "c")
    forms = [
        Channels(names=names, reference="b"),
        Channels(names=names, reference="c"),
        Channels(names=names, reference="b", dtype="float32"),
        Channels(names=(*names, "d"), reference="b"),
    ]
    segmenters = [VolumeSegmenter(torch.nn.Identity(), network, form) for form in forms]
    digests = {slices._preprocessing_digest(segmenter) for segmenter in segmenters}
    digests.add(slices._preprocessing_digest(segmenters[0], [Target(name="t", labels=(1, 2))]))
    digests.add(slices._preprocessing_digest(segmenters[0], REGIONS))
    digests.add(slices._preprocessing_digest(segmenters[0], REGIONS[::-1]))
    assert len(digests) == 7
    public = VolumeSegmenter(torch.nn.Identity(), network)
    assert slices._preprocessing_digest(public) in digests  # names alone change no slice


_SMALLER = {"encoder": "mobilenet_v2", "encoder_weights": "none", "image_size": 64}


def test_processes_with_one_cache_prepare_a_volume_once(dataset, recipe, monkeypatch):
    segmenter = build_segmenter(recipe.network)
    written = []
    write = slices._write

    def slowly(folder, arrays):
        written.append(folder.name)
        time.sleep(0.05)
        write(folder, arrays)

    monkeypatch.setattr(slices, "_write", slowly)
    with ThreadPoolExecutor(4) as pool:  # the lock is between open folders, not processes
        list(pool.map(lambda _: prepare_volumes(dataset, "train", segmenter), range(4)))
    assert len(written) == len(set(written)) == len(dataset.entries("train"))

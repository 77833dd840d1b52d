import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from components.shared.dataset.volumes import (
    Volume,
    encode_volume,
    fetch_volume,
    map_volume,
    target_masks,
    volume_key,
)
from components.shared.errors import UserError
from components.shared.storage.store import FolderStore
from tests.components.conftest import REGIONS


@pytest.fixture
def volume():
    random = np.random.default_rng(0)
    return Volume(
        image=random.integers(0, 256, (5, 6, 7, 3), dtype=np.uint8),
        mask=random.integers(0, 2, (5, 6, 7), dtype=np.uint8),
    )


@pytest.fixture
def stored(tmp_path, volume):
    store, encoded = FolderStore(tmp_path / "store"), encode_volume(volume)
    store.write(volume_key(encoded.digest), encoded.data)
    return store, encoded.digest


class Elsewhere(FolderStore):
    """A folder that behaves like storage of another machine."""

    def local_path(self, key):
        return None


def test_the_bytes_are_safetensors_without_names(volume):
    tensors = load(encode_volume(volume).data)
    assert sorted(tensors) == ["image", "mask"]
    np.testing.assert_array_equal(tensors["image"], volume.image)
    np.testing.assert_array_equal(tensors["mask"], volume.mask)


@given(slices=st.integers(1, 400), side=st.integers(1, 9))
def test_the_bytes_are_those_that_the_library_writes(slices, side):
    random = np.random.default_rng(slices)
    image = random.integers(0, 256, (slices, side, side + 1, 3), dtype=np.uint8)
    mask = random.integers(0, 2, image.shape[:3], dtype=np.uint8)
    expected = save({"image": image, "mask": mask})
    encoded = encode_volume(Volume(image, mask))
    assert encoded.data == expected
    assert encoded.digest == hashlib.sha256(expected).hexdigest()


def test_a_known_volume_has_a_known_digest():
    """The address of every volume in every store hangs on it."""
    image = np.arange(2 * 2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 2, 3)
    encoded = encode_volume(Volume(image, np.ones((2, 2, 2), np.uint8)))
    assert encoded.digest[:16] == "c5d9aae3233151dd"
    assert encoded.image_digest[:16] == "4aae5d96f7681b6c"


def test_the_image_digest_forgets_the_mask(volume):
    other = encode_volume(Volume(volume.image, 1 - volume.mask))
    assert other.digest != encode_volume(volume).digest
    assert other.image_digest == encode_volume(volume).image_digest


def test_the_image_digest_knows_the_shape(volume):
    turned = Volume(volume.image.reshape(5, 7, 6, 3), volume.mask.reshape(5, 7, 6))
    assert encode_volume(turned).image_digest != encode_volume(volume).image_digest


def test_maps_the_file_and_never_changes_it(tmp_path, volume):
    path = tmp_path / "volume"
    path.write_bytes(encode_volume(volume).data)
    mapped = map_volume(path)
    assert isinstance(mapped.image, np.memmap)
    np.testing.assert_array_equal(mapped.image, volume.image)
    np.testing.assert_array_equal(mapped.mask, volume.mask)
    mapped.image[:] = 0
    assert path.read_bytes() == encode_volume(volume).data


def test_each_target_has_a_mask_of_its_labels():
    label_map = np.array([[0, 1, 2], [3, 1, 0]], np.uint8)
    whole, core, enhancing = target_masks(label_map, REGIONS)
    np.testing.assert_array_equal(whole, label_map > 0)
    np.testing.assert_array_equal(core, [[False, True, False], [True, True, False]])
    np.testing.assert_array_equal(enhancing, label_map == 3)
    image = np.zeros((*label_map.shape, 1, 3), np.uint8)
    (tumour,) = Volume(image, label_map[..., None]).truth
    np.testing.assert_array_equal(tumour[..., 0], label_map == 1)


def test_a_local_store_is_read_in_place(stored, volume, tmp_path):
    store, digest = stored
    fetched = fetch_volume(store, digest, tmp_path / "cache")
    np.testing.assert_array_equal(fetched.image, volume.image)
    assert not (tmp_path / "cache").exists()


def test_a_remote_volume_is_copied_once(stored, volume, tmp_path):
    store, digest = Elsewhere(stored[0].root), stored[1]
    fetch_volume(store, digest, tmp_path / "cache")
    store.delete(volume_key(digest))
    fetched = fetch_volume(store, digest, tmp_path / "cache")
    np.testing.assert_array_equal(fetched.mask, volume.mask)


@pytest.mark.parametrize("kind", [FolderStore, Elsewhere])
def test_changed_bytes_are_noticed(stored, tmp_path, kind):
    store, digest = stored
    path = store.local_path(volume_key(digest))
    path.write_bytes(path.read_bytes()[:-1] + b"\7")
    with pytest.raises(UserError, match=r"was changed: its digest is .* ingest the data set again"):
        fetch_volume(kind(store.root), digest, tmp_path / "cache")


def test_a_missing_volume_is_named(stored, tmp_path):
    with pytest.raises(UserError, match=r"lacks volume 0123; ingest the data set again"):
        fetch_volume(stored[0], "0123", tmp_path / "cache")


def test_voxels_are_aligned_for_the_processor(volume):
    (size,) = struct.unpack("<Q", encode_volume(volume).data[:8])
    assert (8 + size) % 8 == 0

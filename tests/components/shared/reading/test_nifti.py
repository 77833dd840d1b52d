"""NIfTI files: what is refused with which sentence, and where an accepted voxel lies."""

import gzip
import struct
import tracemalloc

import nibabel as nib
import numpy as np
import pytest

from components.shared.reading.nifti import encode_mask, read_image
from components.shared.reading.scans import BadScanError

GIB = 2**30
SHAPE = (6, 5, 4)
RAS = np.diag([2.0, 2.5, 6.0, 1])


def values(shape=SHAPE, dtype=np.int16):
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


def encode(array=None, affine=RAS, kind=nib.Nifti1Image, **fields):
    """The bytes of an uncompressed file, with fields of its header changed."""
    image = kind(values() if array is None else array, affine)
    image.set_qform(affine, code=1)
    data = bytearray(image.to_bytes())
    header = image.header_class(bytes(data[: image.header.sizeof_hdr]), check=False)
    for name, value in fields.items():
        header[name] = value
    data[: len(header.binaryblock)] = header.binaryblock
    return bytes(data)


def read(data, max_bytes=GIB, index=None):
    return read_image([("name.nii.gz", data)], max_bytes).chosen(index)


def rotated(degrees):
    turn = np.eye(4)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn[1:3, 1:3] = [[c, -s], [s, c]]
    return turn @ RAS


def stored_as(order, affine):
    """An image whose array is in another orientation, by nibabel."""
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(affine), nib.orientations.axcodes2ornt(order)
    )
    return nib.Nifti1Image(values(), affine).as_reoriented(turn)


def place_mm(image, slice_, row, column):
    """LPS millimeters of a voxel."""
    return image.geometry.matrix[:3] @ (slice_, row, column, 1)


@pytest.mark.parametrize("order", ["RAS", "LPS", "LAS", "PIR", "SRA", "ASL", "IPL"])
@pytest.mark.parametrize("base", [RAS, rotated(20)])
def test_voxels_of_any_orientation_lie_where_nibabel_puts_them(order, base):
    """The array is slices up, rows to the back, columns to the left; no value changes."""
    original, stored = nib.Nifti1Image(values(), base), stored_as(order, base)
    image = read(encode(np.asarray(stored.dataobj), stored.affine))
    assert image.voxels.shape == (4, 5, 6)
    assert nib.aff2axcodes(image.geometry.matrix, (("R", "L"), ("A", "P"), ("I", "S"))) == (
        "S",
        "P",
        "L",
    )
    for voxel in ((0, 0, 0), (5, 0, 3), (1, 4, 2)):
        x, y, z = (base @ (*voxel, 1))[:3]
        value = original.dataobj[voxel]
        (found,) = np.argwhere(image.voxels == value)
        np.testing.assert_allclose(place_mm(image, *found), (-x, -y, z), atol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("order", ["RAS", "PIR", "SLA"])
def test_a_mask_is_written_where_it_was_read(order, dtype):
    base = nib.Nifti1Image(values(), rotated(20))
    to = nib.orientations.axcodes2ornt(order)
    stored = base.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(base.affine), to)
    )
    stored.set_qform(stored.affine, code=2)
    stored.set_sform(stored.affine, code=1)
    stored.header["descrip"] = b"a name"
    data = stored.to_bytes()
    voxels = (read(data).voxels > 50).astype(dtype)
    encoded = encode_mask([("x", data)], voxels[None], ["tumour"])
    assert encoded == encode_mask([("x", data)], voxels[None], ["tumour"])
    found = nib.Nifti1Image.from_bytes(gzip.decompress(encoded))
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(stored.dataobj) > 50)
    np.testing.assert_array_equal(found.affine, stored.affine)
    several = encode_mask([("x", data)], np.stack([voxels, read(data).voxels > 90]), ["a", "b"])
    painted = np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(several)).dataobj)
    original = np.asarray(stored.dataobj)
    np.testing.assert_array_equal(painted, (original > 50) + 1 * (original > 90))
    assert found.get_data_dtype() == dtype
    for code in ("sform_code", "qform_code"):
        assert found.header[code] == stored.header[code]
    np.testing.assert_array_equal(found.get_qform(), stored.get_qform())
    assert b"a name" not in found.header.binaryblock


def test_both_versions_byte_orders_and_packings_are_read():
    big = nib.Nifti1Image(values(), RAS, nib.Nifti1Header(endianness=">"))
    pair = nib.Nifti2Image(values(), RAS)
    plain = encode()
    half = len(plain) // 2
    members = gzip.compress(plain[:half]) + gzip.compress(plain[half:])
    for data in (big.to_bytes(), pair.to_bytes(), gzip.compress(plain), members, plain + b"\0" * 9):
        np.testing.assert_array_equal(read(data).voxels, read(plain).voxels)


def test_an_image_of_a_fourth_axis():
    data = encode(values((6, 5, 4, 3)))
    for index in range(3):
        alone = encode(values((6, 5, 4, 3))[..., index])
        np.testing.assert_array_equal(read(data, index=index).voxels, read(alone).voxels)


def test_scaling_is_that_of_the_header():
    image = read(encode(scl_slope=0.5, scl_inter=-3))
    assert (image.slope, image.intercept, image.is_scaled) == (0.5, -3, True)


def sheared():
    affine = RAS.copy()
    affine[1, 2] = 1.0
    return affine


def other_qform():
    image = nib.Nifti1Image(values(), RAS)
    moved = RAS.copy()
    moved[0, 3] = 7
    image.set_qform(moved, code=1)
    image.set_sform(RAS, code=1)
    return image.to_bytes()


def claims(**fields):
    return gzip.compress(encode(**fields))


RGB = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is no NIfTI file"),
        (b"\x1f\x8b\x08", "it is no NIfTI file"),
        (gzip.compress(b"x" * 999), "it is no NIfTI file"),
        (encode()[:400], "it is truncated: 400 bytes of 592"),
        (gzip.compress(encode())[:-40], "it is truncated"),
        (gzip.compress(encode())[:-8] + bytes(8), "it is damaged: Error -3"),
        (encode(magic=b"ni1"), "its voxels are in another file (.img)"),
        (encode(magic=b"abc"), "it is no NIfTI file, or its header is damaged"),
        (encode(np.zeros(SHAPE, np.complex64)), "its voxels are complex numbers"),
        (encode(RGB), "its voxels are RGB colors"),
        (encode(datatype=999), "its voxels are of unknown type 999"),
        (encode(bitpix=8), "its header is damaged: 8 bits a voxel of type int16"),
        (encode(vox_offset=3), "its header is damaged: voxels start at byte 3"),
        (encode(vox_offset=np.nan), "its header is damaged: voxels start at byte nan"),
        (encode(dim=[0] * 8), "its header is damaged: it declares 0 axes"),
        (encode(dim=[3, 6, -5, 4, 1, 1, 1, 1]), "its header is damaged: it declares 3 axes"),
        (encode(values((6, 5))), "it has 6 x 5 voxels; expected three axes"),
        (encode(values((6, 5, 1))), "it has 6 x 5 x 1 voxels; expected three axes"),
        (encode(values((6, 5, 4, 2))), "it holds 2 images; name one for each channel"),
        (encode(values((6, 5, 4, 2, 2))), "it has 5 axes (6 x 5 x 4 x 2 x 2)"),
        (
            encode(affine=sheared(), qform_code=0),
            "its affine is sheared by 9.5 degrees (gan",
        ),
        (encode(srow_x=[0, 0, 0, 1]), "its sform and its qform differ"),
        (encode(srow_x=[0] * 4, qform_code=0), "its affine is singular"),
        (encode(srow_x=[np.nan] * 4), "its affine is singular or not finite"),
        (other_qform(), "its sform and its qform differ: corners are up to 7 mm apart"),
        (encode(sform_code=0, qform_code=0), "neither its sform nor its qform is set"),
        (encode(quatern_b=3), "its qform is damaged: no rotation"),
        (encode(affine=np.diag([2.0, 9, 2, 1])), "its axial slices have pixels of 9 x 2 mm"),
        (encode(xyzt_units=3), "its spacing is in micrometers"),
        (encode(scl_slope=np.inf), "its header is damaged: slope inf"),
        (claims(dim=[3, 3000, 3000, 3000, 1, 1, 1, 1]), "declares 3000 x 3000 x 3000 voxels, 51"),
        (claims(vox_offset=2.0**30), "declares 6 x 5 x 4 voxels, 1024 MiB; the limit is max_vol"),
        (gzip.compress(encode() + bytes(2**22)), "it does not end after the voxels"),
    ],
)
def test_what_is_refused_has_a_reason(data, reason):
    with pytest.raises(BadScanError) as refused:
        read(data, max_bytes=GIB)
    assert reason in str(refused.value)


def test_no_more_is_unpacked_than_is_declared():
    bomb = gzip.compress(encode() + bytes(2**28), compresslevel=9)
    tracemalloc.start()
    with pytest.raises(BadScanError, match="it does not end after the voxels"):
        read(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_a_missing_image_of_a_fourth_axis():
    with pytest.raises(BadScanError, match="it holds 2 images, none with number 2"):
        read(encode(values((6, 5, 4, 2))), index=2)


def test_the_header_is_that_of_the_standard():
    """Against a mistake that both nibabel and this reader could share."""
    data = encode()
    assert struct.unpack_from("<i", data, 0) == (348,)
    assert struct.unpack_from("<8h", data, 40)[:4] == (3, *SHAPE)
    assert data[344:348] == b"n+1\0"

import gzip
import io
import re
import zipfile

import nibabel as nib
import numpy as np
import pytest
import tifffile

from tests.pipelines.serving.conftest import NAME, tiff, zip_of

AFFINE = np.array([[-1.5, 0, 0, 7], [0, 2, 0, -3], [0, 0, 4, 11], [0, 0, 0, 1]])


def nifti(voxels, affine=AFFINE):
    return nib.Nifti1Image(voxels, affine).to_bytes()


def along_x(image):
    """slices x rows x columns x channels as x, y, z, channels of an LAS file."""
    return np.ascontiguousarray(np.flip(image, 1).transpose(2, 1, 0, 3)).astype(np.int16)


def expected(served, image):
    return served.current.segmenter(image)[0] >= 0.5


def test_a_zip_of_slices_returns_a_tiff(connect, served, image, zipped):
    answer = connect().post("/predict", content=zipped)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/tiff")
    assert f"{NAME}_mask.tif" in answer.headers["content-disposition"]
    assert answer.headers["x-model-version"] == "0"
    mask = tifffile.imread(io.BytesIO(answer.content))
    assert mask.any()
    np.testing.assert_array_equal(mask == 255, expected(served, image))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_nifti_file_returns_one_on_its_grid(connect, image, pack):
    answer = connect().post("/predict", content=pack(nifti(along_x(image))))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/gzip")
    found = nib.Nifti1Image.from_bytes(gzip.decompress(answer.content))
    np.testing.assert_array_equal(found.affine, AFFINE)
    mask = np.asarray(found.dataobj)
    assert mask.shape == along_x(image).shape[:3]
    bright = along_x(image)[..., 1] > 150
    assert (mask[bright] == 1).mean() > 0.8
    assert mask[~bright].mean() < 0.1


def damaged(image, zipped):
    header = bytearray(nifti(along_x(image)))
    header[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()  # dim[1..3]
    holes = along_x(image).astype(np.float32)
    holes[0, 0, 0, 0] = np.nan
    bomb = gzip.compress(nifti(along_x(image)) + bytes(2**28))
    many = {f"{name}/{name}_1.tif": tiff(image[0]) for name in (NAME, NAME.replace("01", "02", 1))}
    large = zip_of({f"{NAME}/{NAME}_1.tif": bytes(2**29)})
    return {
        "garbage": (b"garbage" * 1000, "no NIfTI file"),
        "truncated nifti": (nifti(along_x(image))[:-500], "truncated"),
        "truncated gzip": (gzip.compress(nifti(along_x(image)))[:-500], "damaged|truncated"),
        "truncated zip": (zipped[:-500], "zip archive"),
        "declared size": (bytes(header), "max_volume_mib"),
        "gzip bomb": (bomb, "does not end"),
        "zip bomb": (large, "max_archive_gib|max_file_mib|limit"),
        "NaN": (nifti(holes), "NaN or infinite"),
        "two channels": (nifti(along_x(image)[..., :2]), "it holds 2 images, the model expects 3"),
        "one channel": (nifti(along_x(image)[..., 0]), "it holds 1 images"),
        "four channels": (nifti(along_x(image)[..., [0, 1, 2, 2]]), "it holds 4 images"),
        "gray slices": (
            zip_of({f"{NAME}/{NAME}_1.tif": tiff(image[0])[:-100]}),
            "NAME|_1.tif",
        ),
        "two volumes": (zip_of(many), "2 volumes"),
        "empty zip": (zip_of({}), "empty|zip"),
        "other files": (zip_of({"readme.txt": b"text"}), "volume|folder"),
    }


def test_bad_uploads_are_refused_by_one_sentence(connect, image, zipped):
    client = connect(max_volume_mib=100)
    for name, (content, reason) in damaged(image, zipped).items():
        answer = client.post("/predict", content=content)
        assert answer.status_code == 422, (name, answer.text)
        error = answer.json()["error"]
        assert "\n" not in error
        assert "/tmp" not in error, (name, error)
        assert re.search(reason, error), (name, error)
    assert client.post("/predict", content=zipped).status_code == 200


def test_an_archive_with_a_huge_list_is_refused(connect):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number in range(3000):
            archive.writestr(f"{number}", b"")
    assert connect().post("/predict", content=stream.getvalue()).status_code == 422

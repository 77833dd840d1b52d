import csv
import gzip
import shutil
import stat
import tracemalloc

import highdicom
import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image

from components.predict.prediction import predict_source
from components.predict.settings import PredictSettings
from components.shared.errors import UserError
from components.shared.model.segmenter import load_segmenter
from components.shared.reading.layouts.tcga import encode_tiff
from components.shared.reading.sources.opening import open_source
from components.shared.scoring.decision import find_tumour

SETTINGS = PredictSettings(device="cpu")
NAMES = ("TCGA_CS_0001_19990101", "TCGA_DU_0002_20010203")


def table(output):
    with open(output / "predictions.csv", newline="") as stream:
        return {row["volume"]: row for row in csv.DictReader(stream)}


def expected(model, volume):
    return load_segmenter(model)(volume.image)[0]


def test_labelled_and_unlabelled_volumes_get_the_same_mask(
    tmp_path, write_scan, make_blob, threshold_model
):
    model, volume = threshold_model(150), make_blob(1, slices=11, side=20)
    write_scan(tmp_path / "labelled", volume)
    write_scan(tmp_path / "plain", volume, masks=False)
    outputs = []
    for name in ("labelled", "plain"):
        result = predict_source(
            str(model), str(tmp_path / name), tmp_path / f"{name}-out", SETTINGS
        )
        assert (result.predicted, result.failed) == (1, 0)
        outputs.append(tifffile.imread(tmp_path / f"{name}-out" / f"{NAMES[0]}_mask.tif"))
    np.testing.assert_array_equal(*outputs)
    np.testing.assert_array_equal(outputs[0], (expected(model, volume) >= 0.5) * np.uint8(255))


def test_masks_are_multi_page_tiff_files_in_slice_order(
    tmp_path, write_scan, make_blob, threshold_model
):
    volumes = {NAMES[0]: make_blob(1, slices=12, side=20), NAMES[1]: make_blob(2, slices=3, side=9)}
    for name, volume in volumes.items():
        write_scan(tmp_path / "in" / "kaggle_3m", volume, name)
    predict_source(str(threshold_model(150)), str(tmp_path / "in"), tmp_path / "out", SETTINGS)
    for name, volume in volumes.items():
        with Image.open(tmp_path / "out" / f"{name}_mask.tif") as image:
            assert (image.n_frames, image.mode) == (len(volume.mask), "L")
            for index in range(image.n_frames):
                image.seek(index)
                wanted = expected(threshold_model(150), volume)[index] >= 0.5
                np.testing.assert_array_equal(np.asarray(image), wanted * np.uint8(255))


@pytest.mark.parametrize("shape", [(1, 5, 7), (3, 4, 6), (4, 4, 4), (2, 1, 1), (5, 300, 2)])
def test_any_shape_of_mask_is_written_page_by_page(tmp_path, shape):
    mask = np.random.default_rng(0).random(shape) < 0.5
    (tmp_path / "mask.tif").write_bytes(encode_tiff(mask))
    with tifffile.TiffFile(tmp_path / "mask.tif") as tiff:
        pages = [page.asarray() for page in tiff.pages]
    assert {(page.dtype, page.shape) for page in pages} == {(np.dtype("uint8"), shape[1:])}
    np.testing.assert_array_equal(np.stack(pages), mask * np.uint8(255))


def test_the_table_has_the_numbers_of_each_volume(tmp_path, write_scan, make_blob, threshold_model):
    model, volume = threshold_model(150), make_blob(3)
    write_scan(tmp_path / "in", volume)
    predict_source(str(model), str(tmp_path / "in"), tmp_path / "out", SETTINGS)
    probability = expected(model, volume)
    row = table(tmp_path / "out")[NAMES[0]]
    assert list(row) == [
        "volume",
        "slices",
        "tumour_pixels",
        "tumour_slices",
        "mean_probability",
        "max_probability",
        "status",
        "reason",
    ]
    assert int(row["slices"]) == len(volume.mask)
    assert int(row["tumour_pixels"]) == (probability >= 0.5).sum() > 0
    assert int(row["tumour_slices"]) == (probability >= 0.5).any(axis=(1, 2)).sum()
    assert float(row["mean_probability"]) == pytest.approx(probability.mean())
    assert float(row["max_probability"]) == pytest.approx(probability.max())
    assert (row["status"], row["reason"]) == ("ok", "")


def test_masks_are_made_with_the_threshold_of_the_model(
    tmp_path, write_scan, make_blob, threshold_model
):
    write_scan(tmp_path / "in", make_blob(3))
    probability = expected(threshold_model(150), make_blob(3))
    for threshold in (0.1, 0.5, 0.9):
        model = shutil.copytree(threshold_model(150), tmp_path / f"model{threshold}")
        change_config(model, '"threshold": null', f'"threshold": {threshold}')
        output = tmp_path / f"out{threshold}"
        result = predict_source(str(model), str(tmp_path / "in"), output, SETTINGS)
        assert result.threshold == threshold
        assert result.volumes[0].tumour_pixels == (probability >= threshold).sum() > 0
        page = (output / "predictions.html").read_text()
        assert f"if its probability is {threshold:g} or more. The evaluation of the model" in page


def test_a_model_that_wants_small_components_left_out_gets_it(
    tmp_path, write_scan, make_blob, threshold_model
):
    write_scan(tmp_path / "in", make_blob(3))
    probability = expected(threshold_model(130), make_blob(3))
    model = shutil.copytree(threshold_model(130), tmp_path / "model")
    change_config(model, '"min_component_fraction": 0.0', '"min_component_fraction": 1')
    result = predict_source(str(model), str(tmp_path / "in"), tmp_path / "out", SETTINGS)
    kept = find_tumour(probability, 0.5, 1).sum()
    assert result.volumes[0].tumour_pixels == kept < (probability >= 0.5).sum()
    page = (tmp_path / "out" / "predictions.html").read_text()
    assert "at least 100% of the pixels of the largest part. The evaluation of the model" in page


def change_config(model, before, after):
    config = model / "segmenter" / "config.json"
    assert before in config.read_text()
    config.write_text(config.read_text().replace(before, after))


def test_bad_volumes_are_reported_and_the_others_go_on(
    tmp_path, write_scan, make_blob, threshold_model
):
    source = tmp_path / "in"
    write_scan(source, make_blob(1))
    (write_scan(source, make_blob(2), NAMES[1]) / f"{NAMES[1]}_2.tif").unlink()
    truncated = write_scan(source, make_blob(3), "TCGA_HT_0003_20010203")
    slice_file = truncated / "TCGA_HT_0003_20010203_1.tif"
    slice_file.write_bytes(slice_file.read_bytes()[:300])
    write_scan(source, make_blob(4), "patient-four")
    result = predict_source(str(threshold_model(150)), str(source), tmp_path / "out", SETTINGS)
    assert (result.predicted, result.failed) == (1, 3)
    rows = table(tmp_path / "out")
    assert {name: row["status"] for name, row in rows.items()} == {
        NAMES[0]: "ok",
        NAMES[1]: "refused",
        "TCGA_HT_0003_20010203": "refused",
        "patient-four": "refused",
    }
    assert "slice" in rows[NAMES[1]]["reason"]
    assert "TCGA_HT_0003_20010203_1.tif" in rows["TCGA_HT_0003_20010203"]["reason"]
    assert "folder's name" in rows["patient-four"]["reason"]
    assert rows[NAMES[1]]["tumour_pixels"] == ""
    masks = [path.name for path in (tmp_path / "out").glob("*.tif")]
    assert masks == [f"{NAMES[0]}_mask.tif"]
    page = (tmp_path / "out" / "predictions.html").read_text()
    assert "Volumes that could not be predicted: 3." in page
    assert "patient-four" in page


def test_nothing_usable_is_an_error_that_names_the_table_of_all_reasons(
    tmp_path, write_scan, make_blob, threshold_model
):
    bad = [f"TCGA_CS_000{number}_19990101" for number in range(5)]
    for number, name in enumerate(bad):
        (write_scan(tmp_path / "in", make_blob(number), name) / f"{name}_1.tif").unlink()
    with pytest.raises(
        UserError, match=r"holds no usable volume: 5 refused \(TCGA_CS_0000"
    ) as found:
        predict_source(str(threshold_model(150)), str(tmp_path / "in"), tmp_path / "out", SETTINGS)
    assert str(found.value).endswith(f"; all reasons are in {tmp_path}/out/predictions.csv")
    rows = table(tmp_path / "out")
    assert list(rows) == bad
    assert all("slice" in row["reason"] for row in rows.values())


def test_a_refused_volume_loses_the_mask_of_an_earlier_call(
    tmp_path, write_scan, make_blob, threshold_model
):
    model, output = str(threshold_model(150)), tmp_path / "out"
    folders = [write_scan(tmp_path / "in", make_blob(1), name) for name in NAMES]
    predict_source(model, str(tmp_path / "in"), output, SETTINGS)
    (folders[1] / f"{NAMES[1]}_1.tif").unlink()
    predict_source(model, str(tmp_path / "in"), output, SETTINGS)
    assert [path.name for path in output.glob("*.tif")] == [f"{NAMES[0]}_mask.tif"]
    (folders[0] / f"{NAMES[0]}_1.tif").unlink()
    with pytest.raises(UserError, match="no usable volume"):
        predict_source(model, str(tmp_path / "in"), output, SETTINGS)
    assert [path.name for path in output.iterdir()] == ["predictions.csv"]


def test_an_empty_source_is_an_error_before_the_model_is_loaded(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match="is empty"):
        predict_source(str(tmp_path / "no-model"), str(tmp_path / "in"), tmp_path / "out", SETTINGS)


def test_a_size_that_the_model_refuses_is_a_bad_volume(
    tmp_path, write_scan, make_blob, threshold_model, monkeypatch
):
    from components.shared.model.network import VolumeSegmenter

    def prepare(self, volume):
        assert volume.shape[1] == 24, "out of memory"
        return unchanged(self, volume)

    unchanged = VolumeSegmenter.prepare
    monkeypatch.setattr(VolumeSegmenter, "prepare", prepare)
    write_scan(tmp_path / "in", make_blob(1, side=24))
    write_scan(tmp_path / "in", make_blob(1, side=20), NAMES[1])
    result = predict_source(
        str(threshold_model(150)), str(tmp_path / "in"), tmp_path / "out", SETTINGS
    )
    assert (result.predicted, result.failed) == (1, 1)
    reason = table(tmp_path / "out")[NAMES[1]]["reason"]
    assert "the model cannot take 5 x 20 x 20 voxels: AssertionError: out of memory" in reason


def test_a_model_that_answers_nan_leaves_no_mask(tmp_path, write_scan, make_blob, threshold_model):
    write_scan(tmp_path / "in", make_blob(1))
    model = str(threshold_model(float("nan")))
    with pytest.raises(UserError, match=f"{NAMES[0]}: the model returned values from nan to nan"):
        predict_source(model, str(tmp_path / "in"), tmp_path / "out", SETTINGS)
    assert list((tmp_path / "out").glob("*.tif")) == []


def test_the_page_shows_some_volumes_and_says_so(tmp_path, write_scan, make_blob, threshold_model):
    for number in range(4):
        write_scan(tmp_path / "in", make_blob(number), f"TCGA_CS_000{number}_19990101")
    settings = PredictSettings(device="cpu", most_pictures=2)
    predict_source(str(threshold_model(150)), str(tmp_path / "in"), tmp_path / "out", settings)
    page = (tmp_path / "out" / "predictions.html").read_text()
    assert page.count("data:image/webp") == 2
    assert "The first 2 of 4 volumes are shown" in page
    assert "TCGA_CS_0003_19990101" in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_files_are_readable_by_others_and_nothing_else_is_left(
    tmp_path, write_scan, make_blob, threshold_model
):
    write_scan(tmp_path / "in", make_blob(1))
    predict_source(str(threshold_model(150)), str(tmp_path / "in"), tmp_path / "out", SETTINGS)
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == [f"{NAMES[0]}_mask.tif", "predictions.csv", "predictions.html"]
    assert stat.S_IMODE((tmp_path / "out" / files[0]).stat().st_mode) == 0o644


def test_an_unwritable_output_is_reported(tmp_path, write_scan, make_blob, threshold_model):
    write_scan(tmp_path / "in", make_blob(1))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file"):
        predict_source(str(threshold_model(150)), str(tmp_path / "in"), tmp_path / "file", SETTINGS)


def test_memory_does_not_grow_with_the_volumes(tmp_path, write_scan, make_blob, threshold_model):
    peaks = []
    for count in (2, 12):
        for number in range(count):
            volume = make_blob(number, slices=8, side=96)
            write_scan(tmp_path / f"in{count}", volume, f"TCGA_CS_{number:04d}_19990101")
        settings = PredictSettings(device="cpu", most_pictures=2)
        tracemalloc.start()
        predict_source(
            model=str(threshold_model(150)),
            source_uri=str(tmp_path / f"in{count}"),
            output=tmp_path / f"out{count}",
            settings=settings,
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 500_000, peaks  # a volume is 220 kB with its mask


def test_synthetic_patients_can_be_predicted(tmp_path, threshold_model):
    result = predict_source(str(threshold_model(150)), "synthetic:2", tmp_path / "out", SETTINGS)
    assert result.predicted == 2
    assert len(list((tmp_path / "out").glob("*"))) == 4


NIFTI = {
    "name": "declared",
    "channels": {
        "pre-contrast": "{case}/T1.nii.gz",
        "FLAIR": "{case}/FLAIR.nii.gz",
        "post-contrast": "{case}/T1c.nii.gz",
    },
}


def test_nifti_masks_are_at_the_place_of_the_input(tmp_path, threshold_model):
    """By nibabel alone: the mask has the input's form, and is where the input is bright."""
    settings = PredictSettings(device="cpu", layout=NIFTI, probabilities=True)
    source = "synthetic:3,as=nifti"
    result = predict_source(str(threshold_model(150)), source, tmp_path / "out", settings)
    assert (result.predicted, result.failed) == (3, 0)
    rows = table(tmp_path / "out")
    with open_source(source) as opened:
        inputs = {name: opened.read(f"{name}/FLAIR.nii.gz") for name in rows}
    assert len({nib.aff2axcodes(load(data).affine) for data in inputs.values()}) == 3
    for name, data in inputs.items():
        found = load((tmp_path / "out" / f"{name}_mask.nii.gz").read_bytes())
        probability = load((tmp_path / "out" / f"{name}_probability.nii.gz").read_bytes())
        wanted = load(data)
        np.testing.assert_array_equal(found.affine, wanted.affine)
        for code in ("sform_code", "qform_code"):
            assert found.header[code] == wanted.header[code]
        mask, image = np.asarray(found.dataobj), np.asarray(wanted.dataobj)
        np.testing.assert_array_equal(mask, np.asarray(probability.dataobj) >= 0.5)
        assert (mask.dtype, mask.max()) == (np.uint8, 1)
        overlaps = [
            np.flip(mask, axes)[image >= np.percentile(image, 97)].mean()
            for axes in ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2))
        ]
        assert overlaps[0] > 1.1 * max(overlaps[1:])
        voxel_ml = abs(np.linalg.det(wanted.affine[:3, :3])) / 1000
        assert float(rows[name]["tumour_ml"]) == pytest.approx(mask.sum() * voxel_ml, abs=0.001)


def load(data):
    return nib.Nifti1Image.from_bytes(gzip.decompress(data))


def test_other_channels_than_the_model_has_are_an_error(tmp_path, threshold_model):
    layout = {"name": "declared", "channels": {"FLAIR": "{case}/FLAIR.nii.gz"}}
    settings = PredictSettings(device="cpu", layout=layout)
    with pytest.raises(UserError, match="the model expects the channels pre-contrast, FLAIR, pos"):
        predict_source(
            str(threshold_model(150)), "synthetic:1,as=nifti", tmp_path / "out", settings
        )


def test_probabilities_of_tiff_slices(tmp_path, write_scan, make_blob, threshold_model):
    volume = make_blob(1)
    write_scan(tmp_path / "in", volume)
    settings = PredictSettings(device="cpu", probabilities=True)
    predict_source(str(threshold_model(150)), str(tmp_path / "in"), tmp_path / "out", settings)
    found = tifffile.imread(tmp_path / "out" / f"{NAMES[0]}_probability.tif")
    np.testing.assert_array_equal(found, expected(threshold_model(150), volume))


def test_several_targets_are_painted_into_one_label_map(tmp_path, regions_model):
    settings = PredictSettings(device="cpu", layout=NIFTI, probabilities=True)
    source, output = "synthetic:2,as=nifti", tmp_path / "out"
    result = predict_source(str(regions_model), source, output, settings)
    for name, row in table(output).items():
        mask = np.asarray(load((output / f"{name}_mask.nii.gz").read_bytes()).dataobj)
        assert mask.dtype == np.uint8
        painted = np.zeros_like(mask)
        for number, target in enumerate(("whole", "core", "enhancing"), start=1):
            file = output / f"{name}_probability_{target}.nii.gz"
            found = np.asarray(load(file.read_bytes()).dataobj) >= 0.5
            painted[found] = number
            prefix = "" if number == 1 else f"{target}_"
            assert int(row[f"{prefix}tumour_pixels"]) == found.sum() > 0
            assert float(row[f"{prefix}tumour_ml"]) > 0
        np.testing.assert_array_equal(mask, painted)
    assert [row.further["core"].tumour_pixels > 0 for row in result.volumes] == [True, True]
    page = (output / "predictions.html").read_text()
    assert "outlines of whole in magenta, core in cyan, enhancing in blue." in page
    assert "Columns that name no target are those of whole." in page
    files = {path.name.partition("_")[2] for path in output.glob("*.gz")}
    assert len(files) == 1 + 3


def test_several_targets_are_segments(tmp_path, regions_model):
    paths = {"pre-contrast": "T1", "FLAIR": "FLAIR", "post-contrast": "T1c"}
    channels = {name: f"**/{{case}}/{path}/*" for name, path in paths.items()}
    layout = {"name": "dicom", "channels": channels}
    settings = PredictSettings(device="cpu", layout=layout)
    predict_source(str(regions_model), "synthetic:1,as=dicom", tmp_path / "out", settings)
    (name, row), *_ = table(tmp_path / "out").items()
    found = highdicom.seg.segread(tmp_path / "out" / f"{name}_mask.dcm")
    segments = [found.get_segment_description(number) for number in found.segment_numbers]
    assert [one.SegmentLabel for one in segments] == ["whole", "core", "enhancing"]
    pixels = found.get_volume().array.sum(axis=(0, 1, 2))
    names = ("tumour_pixels", "core_tumour_pixels", "enhancing_tumour_pixels")
    assert pixels.tolist() == [int(row[name]) for name in names]
    assert pixels[0] > pixels[1] > pixels[2]


def test_a_label_map_of_slices_has_the_targets_numbers(
    tmp_path, write_scan, make_regions, regions_model
):
    write_scan(tmp_path / "in", make_regions(1), masks=False)
    predict_source(str(regions_model), str(tmp_path / "in"), tmp_path / "out", SETTINGS)
    mask = tifffile.imread(tmp_path / "out" / f"{NAMES[0]}_mask.tif")
    wanted = sum(load_segmenter(regions_model)(make_regions(1).image) >= 0.5)
    np.testing.assert_array_equal(mask, wanted)
    assert set(np.unique(mask)) == {0, 1, 2, 3}

import shutil

import pytest

from components.shared.errors import UserError
from components.shared.model.archive import BadArchiveError
from components.shared.model.model_folder import read_model_folder
from components.shared.model.segmenter import load_segmenter

FLAVOR = "flavors: {pytorch: {model_data: data, code: null}}\n"


@pytest.fixture
def folder(tmp_path, small_model):
    shutil.copytree(small_model, tmp_path / "model")
    return tmp_path / "model"


def test_the_program_of_a_folder_that_mlflow_wrote_is_found(folder):
    assert read_model_folder(folder).program == folder / "data" / "model.pt2"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "MLmodel has another : "),
        (b"flavors: {}", "another flavors.pytorch: Field required"),
        (b"flavors: [1]", "another flavors: "),
        (b"flavors: {sklearn: {}}", "another flavors.pytorch: "),
        (b"flavors: {pytorch: {}}", "another flavors.pytorch.model_data: "),
        (b"flavors: {pytorch: {model_data: ../data}}", "another flavors.pytorch.model_data: "),
        (b"flavors: {pytorch: {model_data: data, code: code}}", "another flavors.pytorch.code: "),
        (b"!!python/object/apply:os.system [touch x]", "has a tag"),
        (FLAVOR.encode() + b"x: !!python/name:os.system ''", "has a tag"),
        (FLAVOR.encode() + b"x: !local y", "has a tag"),
        (FLAVOR.encode() + b"x: !!timestamp 2001-99-99", "has a tag"),
        (b"flavors: [", "is no YAML"),
        (b"\x00\x01\x02", "is no YAML"),
        (b"\xff\xfe\x00\xd8", "is no YAML"),
        (b'"\\UFFFFFFFF"', "is no YAML"),
        (b"%YAML " + b"9" * 5000 + b".1\n---\n" + FLAVOR.encode(), "is no YAML"),
        (b"[" * 100_000, "is nested too deep"),
        (b"- " * 100_000, "is nested too deep"),
        (b"? [1]\n: 2", "is no YAML"),
    ],
)
def test_another_description_is_refused_in_one_line(folder, text, reason):
    (folder / "MLmodel").write_bytes(text)
    with pytest.raises(UserError, match=r"model .* cannot be loaded: its MLmodel") as told:
        load_segmenter(folder)
    assert reason in str(told.value)
    assert len(str(told.value).splitlines()) == 1
    assert len(str(told.value)) < 600


def test_mappings_that_merge_and_merge_are_not_merged(folder):
    merged = "\n".join(
        f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}, *a{n - 1}]}}" for n in range(1, 30)
    )
    (folder / "MLmodel").write_text(f"{FLAVOR}a0: &a0 {{x: y}}\n{merged}\n")
    assert read_model_folder(folder).metadata == {}


def test_what_else_lies_in_the_folder_is_not_read(folder):
    for name in ("requirements.txt", "conda.yaml", "input_example.json", "registered_model_meta"):
        (folder / name).write_bytes(b"\x00 !!python/object/apply:os.system [x]")
    load_segmenter(folder, "cpu")


@pytest.mark.parametrize("name", ["MLmodel", "data/model.pt2", "data", "notes/elsewhere"])
def test_links_are_refused(folder, tmp_path, name):
    link = folder / name
    link.parent.mkdir(exist_ok=True)
    target = tmp_path / "target"
    if link.exists():
        link.rename(target)
    link.symlink_to(target)
    with pytest.raises(BadArchiveError, match=f"has a link, '{link.name}'"):
        read_model_folder(folder)


@pytest.mark.parametrize("name", ["model.pth", "pickle_module_info.txt", "extra_files/x"])
def test_anything_beside_the_program_is_refused(folder, name):
    path = folder / "data" / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with pytest.raises(BadArchiveError, match=r"something else than one model\.pt2"):
        read_model_folder(folder)


def test_a_file_with_control_characters_in_its_name_cannot_forge_a_line(folder):
    (folder / "a\nbrainseg error: all is lost").symlink_to("x")
    with pytest.raises(UserError) as told:
        load_segmenter(folder)
    assert len(str(told.value).splitlines()) == 1

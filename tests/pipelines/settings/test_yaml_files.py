import pytest

from components.shared.errors import UserError
from pipelines.settings import yaml_files


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.yaml").write_text("train: {x: 1}\n")
    (tmp_path / "b.yaml").write_text("[1, 2]\n")
    return tmp_path


def test_a_file_is_read_by_its_name_or_its_path(folder):
    assert yaml_files.names(folder) == ["a", "b"]
    assert yaml_files.read("a", folder, "preset") == {"train": {"x": 1}}
    assert yaml_files.read(str(folder / "a.yaml"), folder, "preset") == {"train": {"x": 1}}


def test_a_name_without_a_file_is_refused_with_the_names_that_have_one(folder):
    with pytest.raises(UserError, match=r"no preset 'c'; there are a, b, or give a \.yaml file"):
        yaml_files.read("c", folder, "preset")


def test_a_list_is_no_file_of_sections(folder):
    with pytest.raises(UserError, match="preset b must hold sections by name"):
        yaml_files.read("b", folder, "preset")


def test_mappings_merge_at_every_depth_and_lists_do_not():
    below = {"a": {"x": 1, "y": [1, 2]}, "b": 1}
    merged = yaml_files.merged(below, {"a": {"y": [3]}, "c": {"z": 1}})
    assert merged == {"a": {"x": 1, "y": [3]}, "b": 1, "c": {"z": 1}}
    assert below == {"a": {"x": 1, "y": [1, 2]}, "b": 1}

import pytest

from components.shared.reading.sources.source import SourceFile, listed

PROBLEM = "its name holds control characters or is not UTF-8"


def test_a_path_is_folder_and_name():
    assert (SourceFile("a/b/c.tif", 1).folder, SourceFile("a/b/c.tif", 1).name) == ("a/b", "c.tif")
    assert (SourceFile("c.tif", 1).folder, SourceFile("c.tif", 1).name) == ("", "c.tif")


def test_a_harmless_name_is_listed_as_it_is():
    assert listed("ü/c.tif", 3) == SourceFile("ü/c.tif", 3)
    assert listed("c.tif", 0, "not a regular file") == SourceFile("c.tif", 0, "not a regular file")


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("a\nb/c.tif", r"a\nb/c.tif"),
        ("a/\x1b[2J.tif", r"a/\x1b[2J.tif"),
        ("a/\udcff.tif", r"a/\udcff.tif"),
        ("a/\u202efit.exe", r"a/\u202efit.exe"),
    ],
)
def test_other_names_are_escaped_and_are_a_problem(path, shown):
    assert listed(path, 3) == SourceFile(shown, 3, PROBLEM)
    assert listed(path, 3, "not a regular file") == SourceFile(shown, 3, "not a regular file")

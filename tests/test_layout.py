"""The tests mirror the tree: who looks for the tests of a module finds them by its path."""

from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
TESTED_FROM_LINES = 60  # shorter ones may be covered through their neighbours
MODULES = [
    path.relative_to(PROJECT)
    for folder in ("components", "pipelines")
    for path in sorted((PROJECT / folder).rglob("*.py"))
]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_has_a_test_file_of_its_name(module):
    if len((PROJECT / module).read_text().splitlines()) > TESTED_FROM_LINES:
        assert (PROJECT / "tests" / module.parent / f"test_{module.name}").is_file()


def test_a_test_file_has_a_module_of_its_name():
    names = {module.with_name(f"test_{module.name}") for module in MODULES}
    tests = {
        path.relative_to(PROJECT / "tests")
        for folder in ("components", "pipelines")
        for path in (PROJECT / "tests" / folder).rglob("test_*.py")
    }
    fuzz = {name.with_name(f"{name.stem}_fuzz.py") for name in names}
    assert not tests - names - fuzz

import platform
from importlib import metadata

import pytest

from pipelines.doctor.installation import check_packages, check_python


def test_another_python_is_told():
    check = check_python("3.2.1")
    assert check.status == "error"
    assert check.advice == f"use a Python {metadata.metadata('brainseg')['Requires-Python']}"


@pytest.mark.parametrize("version", [platform.python_version(), "3.13.0rc1"])
def test_a_python_that_is_allowed(version):
    assert check_python(version).status == "ok"


def test_packages_that_differ_from_the_tested_ones_are_named(tmp_path):
    constraints = tmp_path / "constraints.txt"
    numpy, pytest_version = metadata.version("numpy"), metadata.version("pytest")
    constraints.write_text(
        f"# tested\nnumpy=={numpy}  # why\npytest==0.1\nno-such-package==1\nminio>=7\n"
    )
    check = check_packages(constraints)
    assert check.status == "warning"
    assert check.found == f"1 differ from the tested versions: pytest {pytest_version} (0.1)"
    assert "--constraint constraints.txt" in check.advice


def test_an_installation_without_a_clone_has_no_tested_versions(tmp_path):
    check = check_packages(tmp_path / "constraints.txt")
    assert (check.status, check.found) == (
        "ok",
        f"all installed (brainseg {metadata.version('brainseg')})",
    )


@pytest.mark.parametrize(
    ("requirement", "status", "found", "advice"),
    [
        ("no-such-package", "error", "no-such-package (for all)", "pip install --editable ."),
        (
            "no-such-package>=2; extra == 'trainer'",
            "error",
            "no-such-package (extra trainer, for run, predict, serve, find-lr, gc and rollback)",
            "pip install 'brainseg[trainer]'",
        ),
        (
            "no-such-package; extra == 'kaggle'",
            "warning",
            "no-such-package (extra kaggle, for sources kaggle:...)",
            "pip install 'brainseg[kaggle]'",
        ),
    ],
)
def test_missing_packages_are_told(requires, requirement, status, found, advice):
    requires(requirement)
    check = check_packages()
    assert (check.status, check.advice) == (status, advice)
    assert check.found == f"not installed: {found}"

from importlib import metadata

import pytest

from components.shared.errors import UserError
from pipelines.extras import USES, missing_packages, require_extras


def test_missing_and_old_packages_are_named(requires):
    requires(
        "numpy",
        "numpy>999",
        "no-such-package; extra == 'trainer'",
        "not-on-this-system; sys_platform == 'none'",
        "not-for-us; extra == 'dev'",
        "brainseg[kaggle]; extra == 'all'",
    )
    assert missing_packages(["", *USES]) == {
        "": [f"numpy>999 (found {metadata.version('numpy')})"],
        "trainer": ["no-such-package"],
    }


def test_a_command_without_its_extras_is_refused(requires):
    requires(
        "numpy; extra == 'pipelines'", "no-such; extra == 'trainer'", "other; extra == 'kaggle'"
    )
    require_extras("pipelines")
    with pytest.raises(UserError) as refused:
        require_extras("trainer", "pipelines")
    assert str(refused.value) == (
        "this needs the extra trainer (not installed: no-such); pip install 'brainseg[trainer]'"
    )
    with pytest.raises(
        UserError, match=r"extras trainer, kaggle \(not installed: no-such, other\); pip install "
    ):
        require_extras("trainer", "kaggle")


def test_the_extras_are_those_of_the_distribution():
    declared = set(metadata.metadata("brainseg").get_all("Provides-Extra"))
    assert declared == {*USES, "mlflow-client", "all", "dev", "docs"}  # the first is of an image


def test_a_distribution_that_is_not_installed(monkeypatch):
    def not_found(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", not_found)
    with pytest.raises(UserError, match="brainseg itself is not installed"):
        require_extras("trainer")

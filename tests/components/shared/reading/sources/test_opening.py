import pytest

from components.shared.errors import UserError
from components.shared.reading.sources.opening import open_source, require_shared_source
from components.shared.reading.sources.source import UnreadableFileError
from tests.components.shared.reading.sources.opened import refusal


def test_synthetic_folder_is_gone_afterwards():
    with open_source("synthetic:1,seed=3") as source:
        paths = [file.path for file in source.files()]
        assert paths[-1] == "data.csv"
        assert source.name == "kaggle_3m"
    with pytest.raises(UnreadableFileError):
        source.read("data.csv")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "is not understood; give a folder, a .zip file"),
        ("http://host/data.zip", "is not understood; give a folder, a .zip file"),
        ("synthetic:", "the form is synthetic:PATIENTS"),
        ("synthetic:0", "the form is synthetic:PATIENTS"),
        ("synthetic:3,seed=x", "the form is synthetic:PATIENTS"),
        ("s3:///prefix", "names no bucket"),
        ("/nowhere/at/all", "/nowhere/at/all does not exist"),
        (__file__, "is neither a folder nor a .zip file"),
        ("kaggle:nonsense", "the form is kaggle:owner/dataset"),
    ],
)
def test_uri_that_leads_nowhere(uri, message):
    assert message in refusal(uri)


@pytest.mark.parametrize("uri", ["s3://mri/raw", "kaggle:owner/data-set", "synthetic:24,seed=1"])
def test_a_source_that_other_machines_see_is_shared(uri):
    require_shared_source(uri)


@pytest.mark.parametrize("uri", ["data", "/data/lgg.zip", "", "kaggle:owner", "ftp://host/x"])
def test_a_source_of_one_machine_is_not_shared(uri):
    with pytest.raises(UserError, match="seen by this machine only, or not understood"):
        require_shared_source(uri)


@pytest.mark.parametrize("uri", ["synthetic:0", "synthetic:x", "s3://"])
def test_a_shared_source_of_a_wrong_form_is_refused(uri):
    with pytest.raises(UserError, match="the form is"):
        require_shared_source(uri)

import pytest

from components.shared.reading.sources.opening import open_source
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

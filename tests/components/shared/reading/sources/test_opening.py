import subprocess
import sys
from pathlib import Path

import pytest

import components
from components.shared.errors import UserError
from components.shared.reading.sources.opening import (
    is_local_path,
    open_source,
    require_shared_source,
    source_forms,
    source_kinds,
)
from components.shared.reading.sources.source import UnreadableFileError
from tests.components.shared.reading.sources.opened import refusal

PROJECT = Path(components.__file__).parents[1]


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


@pytest.mark.parametrize("uri", ["data", "/data/lgg.zip", "", "ftp://host/x"])
def test_a_source_of_one_machine_is_not_shared(uri):
    with pytest.raises(UserError, match="on this machine only, or is not understood"):
        require_shared_source(uri)


@pytest.mark.parametrize("uri", ["synthetic:0", "synthetic:x", "s3://", "kaggle:owner"])
def test_a_shared_source_of_a_wrong_form_is_refused(uri):
    with pytest.raises(UserError, match="the form is"):
        require_shared_source(uri)


def test_forms_are_those_of_the_modules():
    assert source_forms() == (
        "a folder, a .zip file, dataset:ID, kaggle:owner/dataset, s3://bucket/prefix or "
        "synthetic:PATIENTS[,seed=N][,as=LAYOUT]"
    )
    assert source_forms(shared=True) == (
        "dataset:ID, kaggle:owner/dataset, s3://bucket/prefix or "
        "synthetic:PATIENTS[,seed=N][,as=LAYOUT]"
    )


@pytest.mark.parametrize("kind", source_kinds(), ids=lambda kind: kind.name)
def test_a_declaration_read_from_the_text_is_that_of_the_module(kind):
    module = kind.module
    assert (kind.scheme, kind.form, kind.shared) == (module.SCHEME, module.FORM, module.SHARED)
    assert kind.extra == getattr(module, "EXTRA", "")


@pytest.mark.parametrize(
    ("uri", "local"),
    [
        ("data", True),
        ("/data/lgg.zip", True),
        ("a:b", True),
        ("kaggle:a/b", False),
        ("s3://mri", False),
        ("http://host", False),
        ("synthetic:3", False),
    ],
)
def test_local_paths_are_those_without_a_scheme(uri, local):
    assert is_local_path(uri) is local


def test_help_does_not_wait_for_the_libraries_of_the_sources():
    code = (
        "import sys; from components.shared.reading.sources.opening import source_forms\n"
        "source_forms()\n"
        "assert not {'numpy', 'minio', 'kagglehub', 'tifffile'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT)

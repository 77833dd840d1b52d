"""A small source, and what is asked of every kind of source."""

import pickle

import pytest

from components.shared.errors import UserError
from components.shared.reading.sources.opening import open_source
from components.shared.reading.sources.source import SourceFile

FILES = {"kaggle_3m/TCGA_CS_0001_19990101/a.tif": b"one", "kaggle_3m/data.csv": b"Patient\n"}


def problems(source):
    return {file.path: file.problem for file in source.files() if file.problem}


def refusal(uri, **options):
    with pytest.raises(UserError) as raised, open_source(uri, **options) as source:
        source.files()
    return str(raised.value)


def check_contents(source):
    again = pickle.loads(pickle.dumps(source))  # as the worker processes receive it
    assert again.files() == [SourceFile(name, len(data)) for name, data in sorted(FILES.items())]
    assert {file.path: again.read(file.path) for file in again.files()} == FILES

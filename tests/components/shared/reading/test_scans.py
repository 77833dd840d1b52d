"""Names, sizes and messages of scans."""

import re

import pytest

from components.shared.dataset.ingest_account import Quarantined
from components.shared.reading.scans import (
    Scan,
    ScanName,
    SizeLimits,
    hashed_name,
    is_system_file,
    nothing_accepted,
)
from components.shared.reading.sources.source import SourceFile


@pytest.mark.parametrize(
    ("path", "is_system"),
    [("a/b.nii", False), ("a/.b.nii", True), ("__MACOSX/b.nii", True), ("a/Thumbs.db", True)],
)
def test_files_of_an_operating_system_are_known(path, is_system):
    assert is_system_file(path) == is_system


def test_hidden_names_are_digests():
    name = ScanName("v", "p", "s", "")
    files = ((SourceFile("Doe/t1.nii", 10),),)
    assert Scan(name, files).paths == ("Doe/t1.nii",)
    assert Scan(name, files, is_hashed=True).paths == (hashed_name("Doe/t1.nii"),)


def test_the_memory_of_a_process_follows_from_the_largest_volume():
    assert SizeLimits().worker_bytes == 2**30
    assert SizeLimits(max_volume_mib=2048).worker_bytes > 5 * 2**30


@pytest.mark.parametrize(
    ("quarantined", "found"),
    [((), "no case; see X"), ((Quarantined("A", "damaged", ()),), r"1 refused \(A: damaged\)")],
)
def test_a_source_without_a_volume_gets_its_reasons(quarantined, found):
    error = nothing_accepted("s3://mri", quarantined, "no case", "see X")
    assert re.search(found, str(error))

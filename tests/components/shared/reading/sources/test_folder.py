import os

import pytest

from components.shared.reading.sources.opening import open_source
from components.shared.reading.sources.source import UnreadableFileError
from tests.components.shared.reading.sources.opened import FILES, check_contents, problems, refusal


@pytest.fixture
def folder(public_path):
    for name, data in FILES.items():
        path = public_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return public_path / "source"


def test_folder(folder):
    with open_source(str(folder)) as source:
        check_contents(source)
        assert source.name == "source"


def test_links_and_special_files_are_told(folder):
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "b.tif").touch()
    scan = folder / "kaggle_3m" / "TCGA_CS_0001_19990101"
    (scan / "out.tif").symlink_to(outside / "b.tif")
    (scan / "in.tif").symlink_to(scan / "a.tif")
    (scan / "broken.tif").symlink_to(scan / "none.tif")
    (folder / "gone").symlink_to(outside)
    (folder / "again").symlink_to(scan)
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.tif")
    (folder / os.fsdecode(b"bad\xff.tif")).touch()
    prefix = "kaggle_3m/TCGA_CS_0001_19990101"
    with open_source(str(folder)) as source:
        assert problems(source) == {
            f"{prefix}/out.tif": "symbolic link out of the source",
            f"{prefix}/broken.tif": "cannot be read: No such file or directory",
            "gone/*": "symbolic link out of the source",
            "again/*": "symbolic link to a folder",
            "loop/*": "symbolic link to a folder",
            "pipe.tif": "not a regular file",
            "bad\\udcff.tif": "its name holds control characters or is not UTF-8",
        }
        assert source.read(f"{prefix}/in.tif") == b"one"


def test_without_permission(folder, without_root):
    scan = folder / "kaggle_3m" / "TCGA_CS_0001_19990101"
    (folder / "kaggle_3m" / "data.csv").chmod(0)
    scan.chmod(0)
    with without_root(), open_source(str(folder)) as source:
        assert problems(source) == {
            "kaggle_3m/TCGA_CS_0001_19990101/*": "cannot be listed: Permission denied"
        }
        with pytest.raises(UnreadableFileError, match="Permission denied"):
            source.read("kaggle_3m/data.csv")
    scan.chmod(0o700)
    folder.chmod(0)
    with without_root():
        message = refusal(str(folder))
        assert "cannot be read: Permission denied; change the folder's rights" in message
        assert "cannot be read: Permission denied" in refusal(str(folder / "kaggle_3m"))
    folder.chmod(0o755)


def test_uri_may_be_a_link(folder):
    link = folder.parent / "link"
    link.symlink_to(folder)
    with open_source(str(link)) as source:
        check_contents(source)

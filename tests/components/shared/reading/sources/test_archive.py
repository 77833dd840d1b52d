import os
import stat
import struct
import tempfile
import tracemalloc
import zipfile
from pathlib import Path
from random import Random

import pytest

from components.shared.errors import UserError
from components.shared.reading.sources.opening import open_source
from components.shared.reading.sources.source import UnreadableFileError
from tests.components.shared.reading.sources.opened import FILES, check_contents, problems, refusal


def test_archive(tmp_path):
    backwards = dict(reversed(FILES.items()))
    with open_source(write_zip(tmp_path / "a.zip", {"kaggle_3m/": b""} | backwards)) as source:
        check_contents(source)


def test_backslashes_between_the_parts_of_names(tmp_path):
    members = {name.replace("/", "\\"): data for name, data in FILES.items()}
    with open_source(write_zip(tmp_path / "a.zip", {"kaggle_3m\\": b""} | members)) as source:
        check_contents(source)


def test_both_kinds_of_slashes_for_one_name_are_told(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a/b.tif": b"1", "a\\b.tif": b"2"})
    with open_source(path) as source:
        assert problems(source) == {"a/b.tif": "the archive holds 2 members of this name"}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_in_an_archive_is_read(tmp_path, compression):
    inner = write_zip(tmp_path / "inner.zip")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w", compression) as outer:
        outer.write(inner, "lgg.ZIP")
        outer.writestr("readme.txt", "See lgg.ZIP")
        outer.writestr("__MACOSX/._lgg.ZIP", "")
    with open_source(str(tmp_path / "outer.zip")) as source:
        check_contents(source)
        assert (source.name, source.uri) == ("lgg", f"{tmp_path}/outer.zip/lgg.ZIP")
        unpacked = source.file
    assert not unpacked.exists()


def test_an_archive_in_an_archive_needs_a_temporary_folder(tmp_path, monkeypatch):
    inner = write_zip(tmp_path / "inner.zip")
    outer = write_zip(tmp_path / "outer.zip", {"lgg.zip": Path(inner).read_bytes()})
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert "temporary folder (TMPDIR): No such file or directory" in refusal(outer)


def test_an_archive_in_a_folder_is_read(tmp_path):
    write_zip(tmp_path / "lgg.zip")
    (tmp_path / "notes.txt").touch()
    with open_source(str(tmp_path)) as source:
        check_contents(source)
        assert (source.name, source.uri) == ("lgg", f"{tmp_path}/lgg.zip")


def test_an_archive_next_to_slices_is_not_read(tmp_path):
    write_zip(tmp_path / "lgg.zip")
    (tmp_path / "TCGA_CS_0002_19990101").mkdir()
    (tmp_path / "TCGA_CS_0002_19990101" / "a.tif").touch()
    with open_source(str(tmp_path)) as source:
        assert len(source.files()) == 2


def test_several_archives_are_a_question(tmp_path):
    for name in ("a", "b"):
        write_zip(tmp_path / f"{name}.zip")
    message = refusal(str(tmp_path))
    assert "holds no image file and 2 .zip files: a.zip, b.zip; give one of them" in message


def test_a_damaged_archive_in_an_archive_is_the_sources_fault(tmp_path):
    write_zip(tmp_path / "a.zip", {"lgg.zip": b"one"})
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace(b"one", b"two"))
    assert "a.zip: lgg.zip: the archive is damaged here: Bad CRC-32" in refusal(
        str(tmp_path / "a.zip")
    )


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../up.tif", "a/../../up.tif", "C:\\a.tif", "a\\..\\..\\b.tif"]
)
def test_names_that_lead_out_are_refused(tmp_path, name):
    message = refusal(write_zip(tmp_path / "a.zip", FILES | {name: b""}))
    assert "1 of its names lead out of the archive" in message
    assert repr(name) in message


def test_declared_size_beyond_the_limit_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.tif", bytes(3 * 2**20))
    message = refusal(str(tmp_path / "a.zip"), max_archive_gib=2 / 1024)
    assert "unpack to 0.00293 GiB, the limit is max_archive_gib=0.00195" in message


def test_encrypted_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    (tmp_path / "a.zip").write_bytes(data)
    assert "is encrypted; unpack it" in refusal(path)


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\x03\x04"])
def test_not_an_archive(tmp_path, data):
    (tmp_path / "a.zip").write_bytes(data)
    assert "is not a whole zip archive" in refusal(str(tmp_path / "a.zip"))


def test_truncated(tmp_path):
    path = write_zip(tmp_path / "a.zip")
    os.truncate(path, (tmp_path / "a.zip").stat().st_size - 30)
    assert "is not a whole zip archive" in refusal(path)


def test_without_permission(public_path, without_root):
    path = write_zip(public_path / "a.zip")
    os.chmod(path, 0)
    with without_root():
        assert "cannot be read: Permission denied" in refusal(path)


def test_wrong_checksum_is_the_members_fault(tmp_path):
    path = write_zip(tmp_path / "a.zip")
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace(b"one", b"two"))
    with open_source(path) as source:
        with pytest.raises(UnreadableFileError, match="Bad CRC-32"):
            source.read("kaggle_3m/TCGA_CS_0001_19990101/a.tif")
        assert source.read("kaggle_3m/data.csv") == b"Patient\n"


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("part", [slice(0, 30), slice(30, -90), slice(-90, None)])
def test_damage_anywhere_is_the_members_fault_or_the_archives(tmp_path, kind, part):
    random, reasons, path = Random(0), [], tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("a.tif", random.randbytes(200))
    whole = path.read_bytes()
    for _ in range(300):
        damaged = bytearray(whole)
        place = random.randrange(*part.indices(len(whole)))
        damaged[place] ^= random.randrange(1, 256)
        path.write_bytes(damaged)
        reasons += read_all(path)
    assert any(reason.startswith(("the archive is damaged", "cannot be")) for reason in reasons)
    assert not any(reason.endswith(": ") for reason in reasons)


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_cannot_be_unpacked_in_part_is_refused(tmp_path, kind):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("bad.tif", b"bad", compress_type=kind)
        archive.writestr("good.tif", b"good")
    with open_source(str(tmp_path / "a.zip")) as source:
        reason = "compressed in the archive by another method than deflate; zip it again"
        assert problems(source) == {"bad.tif": reason}
        assert source.read("good.tif") == b"good"


def test_a_member_is_unpacked_no_further_than_it_declares(tmp_path):
    """Its size is a claim: 64 KB said to hold 1000 bytes took 64 MiB to unpack, and more."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.tif", bytes(64 * 2**20))
    data = bytearray(path.read_bytes())
    for start in (22, data.index(b"PK\x01\x02") + 24):  # in the local and the central header
        struct.pack_into("<I", data, start, 1000)
    path.write_bytes(data)
    with open_source(str(path)) as source:
        source.files()
        tracemalloc.start()
        with pytest.raises(UnreadableFileError, match="Bad CRC-32"):
            source.read("a.tif")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.filterwarnings("ignore:Duplicate name")  # it is what is tested
def test_links_and_doubles_are_told(tmp_path):
    link = zipfile.ZipInfo("link.tif")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("twice.tif", b"1")
        archive.writestr("twice.tif", b"2")
    with open_source(str(tmp_path / "a.zip")) as source:
        assert len(source.files()) == 3
        assert problems(source) == {
            "link.tif": "symbolic link in the archive",
            "twice.tif": "the archive holds 2 members of this name",
        }


def write_zip(path, members=FILES):
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in dict(members).items():
            archive.writestr(member, data)
    return str(path)


def read_all(path):
    """The reasons for what cannot be read."""
    reasons = []
    try:
        with open_source(str(path)) as source:
            for file in source.files():
                if file.problem:
                    continue
                try:
                    source.read(file.path)
                except UnreadableFileError as error:
                    reasons.append(str(error))
    except UserError as error:
        reasons.append(str(error))
    return reasons

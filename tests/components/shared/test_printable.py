import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import components
from components.shared.printable import printable, printable_lines

PROJECT = Path(components.__file__).parents[1]

# each is the name of a folder of TIFF files
FORGED = "scan\nbrainseg error: all is lost"
FINISHED = "scan\nTask 'ingest' finished with status SUCCESS"
CARRIAGE = "scan\rerror: nothing is here"
ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31mred"
TURNED = "scan\u202etxt.exe\u2028next"
HOSTILE = [FORGED, FINISHED, CARRIAGE, ESCAPES, TURNED, os.fsdecode(b"scan\xff\x9b0m")]


@given(st.text())
def test_nothing_is_left_that_forges_or_drives(text):
    shown = printable(text)
    assert not any(unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"} for letter in shown)
    assert not any(unicodedata.bidirectional(letter)[1:] in {"RO", "LO", "RE"} for letter in shown)
    assert printable(shown) == shown
    assert shown.encode().decode() == shown


@pytest.mark.parametrize(
    "text", ["", "TCGA_CS_4941", "café, Zürich", "腦部 掃描", "می‌خواهم", "a  b", "👩‍🔬", "C:\\new"]
)
def test_what_is_harmless_stays_as_it_is(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (FORGED, r"scan\nbrainseg error: all is lost"),
        (ESCAPES, r"\x1b[2J\x1b]0;owned\x07\x9b31mred"),
        (TURNED, r"scan\u202etxt.exe\u2028next"),
        (os.fsdecode(b"\xff"), r"\udcff"),
    ],
)
def test_the_rest_is_shown_as_an_escape(text, shown):
    assert printable(text) == shown


def test_lines_after_the_first_are_indented():
    assert printable_lines("one\ntwo\r\n\nthree") == "one\n  two\\r\n  \n  three"


@pytest.fixture
def hostile_source(tmp_path, write_volume):
    write_volume(tmp_path / "source", "TCGA_CS_0001_19990101")
    for number, name in enumerate(HOSTILE):
        (tmp_path / "source" / name).mkdir()
        (tmp_path / "source" / name / f"{number}.tif").touch()
        (tmp_path / "source" / f"{name}.txt").touch()
    (tmp_path / "source" / "data.csv").write_text(
        f'Patient,"{FORGED}"\nTCGA_CS_0001,1\n"{FORGED}\x1b[2J",1\n', encoding="utf-8"
    )
    return tmp_path / "source"


@pytest.mark.parametrize("options", [[], ["--json"], ["--strict"]])
def test_no_name_forges_a_line_of_the_command(hostile_source, tmp_path, options):
    done = brainseg("ingest", "--source", hostile_source, "--store", tmp_path / "store", *options)
    assert done.returncode == ("--strict" in options)
    text = done.stdout + done.stderr
    assert r"scan\nbrainseg error: all is lost" in text
    assert r"[2J\x1b]0;owned\x07\x9b31m" in text
    check(text)


def test_no_name_forges_a_line_of_an_error(hostile_source, tmp_path):
    place = (hostile_source / FORGED).rename(tmp_path / FORGED)
    for uri in (place, tmp_path / f"none{ESCAPES}{FORGED}"):
        done = brainseg("ingest", "--source", uri, "--store", tmp_path / "store")
        assert done.returncode == 1
        check(done.stderr)


def brainseg(*arguments):
    return subprocess.run(
        [sys.executable, "-c", "from pipelines.cli import main; main()", *map(str, arguments)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )


def check(text):
    assert not re.findall("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028\ud800-\udfff]", text)
    starts = ("brainseg error", "Task 'ingest'", "error: nothing", "next")
    assert not [line for line in text.splitlines() if line.startswith(starts)]

import pytest

from components.shared.reading.sources.folder import FolderSource
from components.shared.reading.sources.source import SourceFile
from components.shared.reading.table import AttributeTable, join_attributes, read_attributes
from components.shared.reading.tcga import ATTRIBUTES

HEAD = ",".join(["Patient", *ATTRIBUTES])


def row(patient, **cells):
    return ",".join([patient, *(cells.get(column, "1") for column in ATTRIBUTES)])


def read(folder, *tables):
    """Reads `data.csv` of folders 0, 1, ..., given as lists of lines or as bytes."""
    files = []
    for number, table in enumerate(tables):
        data = table if isinstance(table, bytes) else "\n".join(table).encode()
        (folder / str(number)).mkdir()
        (folder / str(number) / "data.csv").write_bytes(data)
        files.append(SourceFile(f"{number}/data.csv", len(data)))
    return read_attributes(FolderSource(str(folder), folder), files, max_file_mib=0.01)


def test_cells_become_numbers_and_empty_ones_none(tmp_path):
    table = read(tmp_path, [HEAD, row("A", age_at_initial_pathologic="67", race=""), row("B")])
    assert table.rows["A"]["age_at_initial_pathologic"] == 67.0
    assert table.rows["A"]["race"] is None
    assert table.rows["B"] == dict.fromkeys(ATTRIBUTES, 1.0)
    assert table.warnings == ()
    assert table.files == {"data.csv: read as attributes": 1}


def test_further_columns_may_hold_text(tmp_path):
    lines = [f"{HEAD},scanner,field", row("A") + ",Signa,1.5", row("B") + ",,"]
    table = read(tmp_path, lines)
    assert (table.rows["A"]["scanner"], table.rows["A"]["field"]) == ("Signa", 1.5)
    assert (table.rows["B"]["scanner"], table.rows["B"]["field"]) == (None, None)
    assert table.columns == (*ATTRIBUTES, "scanner", "field")


def test_signature_of_excel_is_no_part_of_the_name(tmp_path):
    assert read(tmp_path, b"\xef\xbb\xbf" + f"{HEAD}\r\n{row('A')}\r\n".encode()).rows.keys() == {
        "A"
    }


@pytest.mark.parametrize(
    ("lines", "warning"),
    [
        (
            [HEAD, row("A", race="old"), row("B", race="nan")],
            "data.csv: column race: not a number, left empty: 2 times: 'old', 'nan'",
        ),
        (["Patient,gender,race", "A,1,2"], "data.csv: no column RNASeqCluster, Methylation"),
        (
            [HEAD, row("A"), "B,1"],
            "data.csv: broken row, left out: 1 time: line 3",
        ),
        ([HEAD, row("A"), row("A", race="2")], "rows of one patient that differ, left empty"),
        ([HEAD, row("A"), row("A")], "data.csv: row that occurs twice: 1 time: A"),
    ],
)
def test_odd_cells_and_rows_are_told(tmp_path, lines, warning):
    table = read(tmp_path, lines)
    assert len(table.warnings) == 1
    assert warning in table.warnings[0]
    assert set(table.rows["A"]) == set(ATTRIBUTES)


def test_broken_numbers_and_contradictions_are_left_empty(tmp_path):
    lines = [HEAD, row("A", race="old"), row("B"), row("B", race="2"), "C,1"]
    table = read(tmp_path, lines)
    assert table.rows["A"] == dict.fromkeys(ATTRIBUTES, 1.0) | {"race": None}
    assert table.rows["B"] == dict.fromkeys(ATTRIBUTES)
    assert "C" not in table.rows


@pytest.mark.parametrize(
    ("data", "warning"),
    [
        (b"", "data.csv: needs one column 'Patient' and no column twice; found none"),
        (
            b"Patient;race\nA;1",
            "needs one column 'Patient' and no column twice; found Patient;race",
        ),
        (b"Patient,race,race\nA,1,2", "no column twice; found Patient, race, race"),
        (b"Patient,\xff\n", "0/data.csv: not UTF-8 text; attributes are left empty"),
        (b'Patient,"race\nA,1', "data.csv: not a CSV table"),
        (b"Patient,race\n" + b"A,1\n" * 4000, "0/data.csv: larger than max_file_mib=0.01"),
    ],
)
def test_unusable_table_is_told(tmp_path, data, warning):
    table = read(tmp_path, data)
    assert table.rows == {}
    assert table.files == {"data.csv: cannot be read": 1}
    assert len(table.warnings) == 1
    assert warning in table.warnings[0]


def test_unreadable_file_is_told(tmp_path):
    source = FolderSource(str(tmp_path), tmp_path)
    table = read_attributes(source, [SourceFile("data.csv", 10)], max_file_mib=1)
    assert table.warnings == (
        "data.csv: cannot be read: No such file or directory; attributes are left empty",
    )


def test_copies(tmp_path):
    assert read(tmp_path, [HEAD, row("A")], [HEAD, row("A")]).files == {
        "data.csv: read as attributes": 1,
        "identical copy": 1,
    }


def test_differing_copies_are_not_guessed_about(tmp_path):
    table = read(tmp_path, [HEAD, row("A")], [HEAD, row("B")])
    assert table.rows == {}
    assert table.files == {"data.csv: copies differ": 2}
    assert table.warnings == ("0/data.csv, 1/data.csv differ; attributes are left empty",)


def test_join(make_entry):
    table = AttributeTable(("race",), {"P1": {"race": 1.0}, "P3": {"race": 2.0}, "P4": {}})
    entries = [make_entry(1, patient="P1"), make_entry(2, patient="P2")]
    joined, warnings = join_attributes(entries, table, patients=["P1", "P2", "P4"])
    assert [entry.attributes for entry in joined] == [{"race": 1.0}, {"race": None}]
    assert warnings == [
        "data.csv: no volume for 1 row: P3",
        "data.csv: no row for 1 patient: P2; left empty",
    ]


def test_no_table(make_entry):
    table = read_attributes(None, [], max_file_mib=1)
    joined, warnings = join_attributes([make_entry(1)], table, patients=[])
    assert joined[0].attributes == {}
    assert warnings == ["no data.csv: attributes are empty"]

"""Joins the genomic and clinical columns of `data.csv` to the volumes."""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from components.shared.dataset.manifest import VolumeEntry
from components.shared.reading.sources.source import Source, SourceFile, UnreadableFileError
from components.shared.reading.tcga import ATTRIBUTE_FILE, ATTRIBUTES, PATIENT_COLUMN

Value = float | str | None
Row = Mapping[str, Value]
_Places = defaultdict[str, list[str]]  # problem -> places in the table

_SHOWN = 5


@dataclass(frozen=True)
class AttributeTable:
    """The columns of `data.csv` by patient.

    Attributes:
        columns: All but `Patient`; empty without a readable table.
        files: Number of files called `data.csv`, by their use.
        warnings: Irregularities of the table, one sentence each.
    """

    columns: tuple[str, ...] = ()
    rows: Mapping[str, Row] = field(default_factory=dict)
    files: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def read_attributes(
    source: Source, files: Sequence[SourceFile], max_file_mib: float
) -> AttributeTable:
    """Reads the table from all files of its name; its faults become warnings, never an error."""
    if not files:
        return AttributeTable(warnings=(f"no {ATTRIBUTE_FILE}: attributes are empty",))
    try:
        texts = {_read(source, file, max_file_mib) for file in files}
        if len(texts) > 1:
            paths = ", ".join(file.path for file in files)
            return _empty("copies differ", len(files), f"{paths} differ")
        return _parse(texts.pop(), len(files))
    except UnreadableFileError as error:
        return _empty("cannot be read", len(files), str(error))


def join_attributes(
    entries: Iterable[VolumeEntry], table: AttributeTable, patients: Iterable[str]
) -> tuple[list[VolumeEntry], list[str]]:
    """Copies each patient's row into the entries of the volumes.

    Args:
        entries: Accepted volumes.
        table: Result of `read_attributes`.
        patients: All patients of the source, quarantined ones too.

    Returns:
        The entries with attributes, and all warnings.
    """
    empty: Row = dict.fromkeys(table.columns)
    joined = [
        entry.model_copy(update={"attributes": dict(table.rows.get(entry.patient, empty))})
        for entry in entries
    ]
    without = [entry.patient for entry in joined if entry.patient not in table.rows]
    absent = sorted(table.rows.keys() - set(patients))
    warnings = list(table.warnings)
    if absent:
        warnings.append(f"{ATTRIBUTE_FILE}: no volume for {_some(absent, 'row')}")
    if without and table.columns:
        warnings.append(f"{ATTRIBUTE_FILE}: no row for {_some(without, 'patient')}; left empty")
    return joined, warnings


def _read(source: Source, file: SourceFile, max_file_mib: float) -> str:
    if file.size > max_file_mib * 2**20:
        raise UnreadableFileError(f"{file.path}: larger than max_file_mib={max_file_mib:g}")
    try:
        return source.read(file.path).decode("utf-8-sig")  # Excel writes the signature
    except UnicodeDecodeError as error:
        raise UnreadableFileError(f"{file.path}: not UTF-8 text") from error
    except UnreadableFileError as error:
        raise UnreadableFileError(f"{file.path}: {error}") from error


def _empty(rule: str, files: int, reason: str) -> AttributeTable:
    return AttributeTable(
        files={f"{ATTRIBUTE_FILE}: {rule}": files},
        warnings=(f"{reason}; attributes are left empty",),
    )


def _parse(text: str, copies: int) -> AttributeTable:
    try:
        head, *lines = list(csv.reader(io.StringIO(text), strict=True)) or [[]]
    except csv.Error as error:
        raise UnreadableFileError(f"{ATTRIBUTE_FILE}: not a CSV table ({error})") from error
    if PATIENT_COLUMN not in head or len(set(head)) != len(head):
        raise UnreadableFileError(
            f"{ATTRIBUTE_FILE}: needs one column {PATIENT_COLUMN!r} and no column twice; found "
            f"{', '.join(head) or 'none'}"
        )
    missing = [column for column in ATTRIBUTES if column not in head]
    warnings = [f"no column {', '.join(missing)}; left empty"] if missing else []
    columns = dict.fromkeys([*ATTRIBUTES, *head])
    del columns[PATIENT_COLUMN]
    places: _Places = defaultdict(list)
    rows = {
        patient: _values(row, columns, places)
        for patient, row in _rows(head, lines, places).items()
    }
    warnings += [f"{problem}: {_some(found, 'time')}" for problem, found in places.items()]
    return AttributeTable(
        columns=tuple(columns),
        rows=rows,
        files={f"{ATTRIBUTE_FILE}: read as attributes": 1}
        | ({"identical copy": copies - 1} if copies > 1 else {}),
        warnings=tuple(f"{ATTRIBUTE_FILE}: {warning}" for warning in warnings),
    )


def _rows(
    head: Sequence[str], lines: Iterable[Sequence[str]], places: _Places
) -> dict[str, dict[str, str]]:
    rows: dict[str, dict[str, str]] = {}
    for number, line in enumerate(lines, start=2):
        if not any(cell.strip() for cell in line):
            continue
        row = {column: cell.strip() for column, cell in zip(head, line, strict=False)}
        patient = row.pop(PATIENT_COLUMN, "")
        if len(line) != len(head) or not patient:
            places["broken row, left out"].append(f"line {number}")
        elif rows.setdefault(patient, row) != row:
            places["rows of one patient that differ, left empty"].append(patient)
            rows[patient] = {}
        elif rows[patient] is not row:
            places["row that occurs twice"].append(patient)
    return rows


def _values(row: Mapping[str, str], columns: Iterable[str], places: _Places) -> Row:
    values = {column: _value(row.get(column, "")) for column in columns}
    for column in ATTRIBUTES:
        if isinstance(values[column], str):
            places[f"column {column}: not a number, left empty"].append(repr(row[column]))
            values[column] = None
    return values


def _value(cell: str) -> Value:
    try:
        number = float(cell)
    except ValueError:
        return cell or None
    return number if math.isfinite(number) else cell


def _some(names: Sequence[str], what: str) -> str:
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"{len(names)} {what}{'s' if len(names) > 1 else ''}: {shown}"

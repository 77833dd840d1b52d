"""Tables with a row of attributes for each patient, such as `data.csv`."""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from components.shared.dataset.manifest import VolumeEntry
from components.shared.reading.scans import hashed_name
from components.shared.reading.sources.source import Source, SourceFile, UnreadableFileError
from components.shared.reading.tcga import ATTRIBUTE_FILE, ATTRIBUTES, PATIENT_COLUMN

Value = float | str | None
Row = Mapping[str, Value]
_Places = defaultdict[str, list[str]]  # problem -> places in the table

_SHOWN = 5


@dataclass(frozen=True)
class TableForm:
    """Name and columns of a table.

    Attributes:
        file: Name for messages.
        key: Column that names the patient; empty for the first one.
        numbers: Columns that every table has, all with numbers.
        is_hashed: Whether patients are known by `hashed_name`.
    """

    file: str
    key: str = ""
    numbers: tuple[str, ...] = ()
    is_hashed: bool = False


TCGA_TABLE = TableForm(ATTRIBUTE_FILE, PATIENT_COLUMN, tuple(ATTRIBUTES))


@dataclass(frozen=True)
class AttributeTable:
    """The columns of a table by patient.

    Attributes:
        columns: All but that of the patient; empty without a readable table.
        files: Number of the table's files, by their use.
        warnings: Irregularities of the table, one sentence each.
        file: Name of the table for messages.
    """

    columns: tuple[str, ...] = ()
    rows: Mapping[str, Row] = field(default_factory=dict)
    files: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    file: str = ATTRIBUTE_FILE

    def row(self, patient: str, volume: str) -> Row | None:
        """Returns the row of a patient, or of a single volume."""
        return self.rows.get(patient, self.rows.get(volume))


def read_attributes(
    source: Source,
    files: Sequence[SourceFile],
    max_file_mib: float,
    form: TableForm = TCGA_TABLE,
) -> AttributeTable:
    """Reads the table from all files of its name; its faults become warnings, never an error."""
    if not files:
        missing = (f"no {form.file}: attributes are empty",) if form.file else ()
        return AttributeTable(warnings=missing, file=form.file)
    try:
        texts = {_read(source, file, max_file_mib) for file in files}
        if len(texts) > 1:
            paths = ", ".join(file.path for file in files)
            return _empty(form, "copies differ", len(files), f"{paths} differ")
        return _parse(form, texts.pop(), len(files))
    except UnreadableFileError as error:
        return _empty(form, "cannot be read", len(files), str(error))


def join_attributes(
    entries: Iterable[VolumeEntry], table: AttributeTable, patients: Iterable[str]
) -> tuple[list[VolumeEntry], list[str]]:
    """Copies each patient's or volume's row into the entries of the volumes.

    Args:
        entries: Accepted volumes.
        table: Result of `read_attributes`.
        patients: All patients and volumes of the source, quarantined ones too.

    Returns:
        The entries with attributes, and all warnings.
    """
    empty: Row = dict.fromkeys(table.columns)
    found = [(entry, table.row(entry.patient, entry.volume)) for entry in entries]
    joined = [entry.model_copy(update={"attributes": dict(row or empty)}) for entry, row in found]
    without = list(dict.fromkeys(entry.patient for entry, row in found if row is None))
    absent = sorted(table.rows.keys() - set(patients))
    warnings = list(table.warnings)
    if absent:
        warnings.append(f"{table.file}: no volume for {_some(absent, 'row')}")
    if without and table.columns:
        warnings.append(f"{table.file}: no row for {_some(without, 'patient')}; left empty")
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


def _empty(form: TableForm, rule: str, files: int, reason: str) -> AttributeTable:
    return AttributeTable(
        file=form.file,
        files={f"{form.file}: {rule}": files},
        warnings=(f"{reason}; attributes are left empty",),
    )


def _parse(form: TableForm, text: str, copies: int) -> AttributeTable:
    head, lines = _cells(form, text)
    key = form.key or head[0]
    missing = [column for column in form.numbers if column not in head]
    warnings = [f"no column {', '.join(missing)}; left empty"] if missing else []
    columns = dict.fromkeys([*form.numbers, *head])
    del columns[key]
    places: _Places = defaultdict(list)
    rows = {
        patient: _values(row, columns, form, places)
        for patient, row in _rows(form, key, head, lines, places).items()
    }
    warnings += [f"{problem}: {_some(found, 'time')}" for problem, found in places.items()]
    return AttributeTable(
        file=form.file,
        columns=tuple(columns),
        rows=rows,
        files={f"{form.file}: read as attributes": 1}
        | ({"identical copy": copies - 1} if copies > 1 else {}),
        warnings=tuple(f"{form.file}: {warning}" for warning in warnings),
    )


def _cells(form: TableForm, text: str) -> tuple[list[str], list[list[str]]]:
    delimiter = "\t" if form.file.endswith(".tsv") else ","
    try:
        head, *lines = list(csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)) or [[]]
    except csv.Error as error:
        raise UnreadableFileError(f"{form.file}: not a CSV table ({error})") from error
    if form.key not in ("", *head) or not head or len(set(head)) != len(head):
        wanted = f"one column {form.key!r}" if form.key else "a line of names"
        raise UnreadableFileError(
            f"{form.file}: needs {wanted} and no column twice; found {', '.join(head) or 'none'}"
        )
    return head, lines


def _rows(
    form: TableForm,
    key: str,
    head: Sequence[str],
    lines: Iterable[Sequence[str]],
    places: _Places,
) -> dict[str, dict[str, str]]:
    rows: dict[str, dict[str, str]] = {}
    for number, line in enumerate(lines, start=2):
        if not any(cell.strip() for cell in line):
            continue
        row = {column: cell.strip() for column, cell in zip(head, line, strict=False)}
        patient = row.pop(key, "")
        patient = hashed_name(patient) if form.is_hashed and patient else patient
        if len(line) != len(head) or not patient:
            places["broken row, left out"].append(f"line {number}")
        elif rows.setdefault(patient, row) != row:
            places["rows of one patient that differ, left empty"].append(patient)
            rows[patient] = {}
        elif rows[patient] is not row:
            places["row that occurs twice"].append(patient)
    return rows


def _values(
    row: Mapping[str, str], columns: Iterable[str], form: TableForm, places: _Places
) -> Row:
    values = {column: _value(row.get(column, "")) for column in columns}
    for column in form.numbers:
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

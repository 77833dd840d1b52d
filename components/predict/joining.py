"""End of inference: the table of all predictions of a model version, its page and the outcome."""

from dataclasses import dataclass
from datetime import UTC, datetime
from types import UnionType
from typing import Any, get_args, get_origin

import pyarrow as pa  # type: ignore[import-untyped] # no stubs; comes with MLflow
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from pydantic import AwareDatetime

from components.predict.overview import render_overview
from components.predict.planning import InferencePlan
from components.predict.stored import PAGE, TABLE, CaseRow, StoredPredictions
from components.shared.storage.outcome import Outcome
from components.shared.storage.store import Store

_TYPES = {int: pa.int64(), float: pa.float64(), AwareDatetime: pa.timestamp("us", tz="UTC")}


@dataclass(frozen=True)
class Joined:
    """Result of `join_predictions`.

    Attributes:
        table: Parquet file with a row per case and content, and the refused cases.
        page: HTML page.
        predicted: Number of cases that the run has predicted.
        outcome: Outcome of the pipeline run.
    """

    table: bytes
    page: str
    predicted: int
    outcome: Outcome


def join_predictions(plan: InferencePlan, store: Store, pipeline_run: str) -> Joined:
    """Writes table and page of all predictions of a model version, from the rows of all runs.

    Args:
        plan: Plan of the run, whose shards have ended.
        store: Store of the predictions.
        pipeline_run: Id of the pipeline run, as in the rows of its shards.
    """
    predictions = StoredPredictions(store, plan.model)
    _keep_refusals(plan, predictions, pipeline_run)
    rows = predictions.rows()
    table, page = parquet_table(rows), render_overview(plan, rows, pipeline_run)
    store.write(f"{predictions.folder}{TABLE}", table)
    store.write(f"{predictions.folder}{PAGE}", page.encode())
    new = [row for row in rows if row.pipeline_run == pipeline_run]
    predicted = sum(row.status == "ok" for row in new)
    return Joined(table, page, predicted, _outcome(plan, new, f"{store.uri}/{predictions.folder}"))


def parquet_table(rows: list[CaseRow]) -> bytes:
    """Encodes rows as a Parquet file, with the columns of `CaseRow`."""
    further = dict.fromkeys(target for row in rows for target in row.further)
    columns = CaseRow.columns(list(further))
    schema = pa.schema([(name, _type(annotation)) for name, annotation in columns.items()])
    table = pa.Table.from_pylist([row.cells() for row in rows], schema)
    stream = pa.BufferOutputStream()
    pq.write_table(table, stream)
    return bytes(stream.getvalue())


def _type(annotation: Any) -> pa.DataType:  # noqa: ANN401 # of a field
    if get_origin(annotation) is tuple:
        return pa.list_(_type(get_args(annotation)[0]))
    if isinstance(annotation, UnionType):
        return _type(next(kind for kind in get_args(annotation) if kind is not type(None)))
    return _TYPES.get(annotation, pa.string())


def _keep_refusals(plan: InferencePlan, predictions: StoredPredictions, pipeline_run: str) -> None:
    """Stores the cases that the listing refuses, and removes those that are gone or fixed."""
    present = {*plan.cases, *plan.refused}
    predictions.forget_refusals(lambda row: row.source == plan.source and row.volume not in present)
    for name, reason in plan.refused.items():
        predictions.write_row(
            CaseRow(
                volume=name,
                status="refused",
                reason=reason,
                model=plan.model,
                source=plan.source,
                pipeline_run=pipeline_run,
                predicted_at=datetime.now(UTC),
            )
        )


def _outcome(plan: InferencePlan, new: list[CaseRow], folder: str) -> Outcome:
    refused = sum(row.status == "refused" for row in new)
    flagged = sum(bool(row.flags) for row in new)
    predicted = len(new) - refused
    # a shard finds by content what the plan has not by its files
    known = plan.known + len(plan.cases) + len(plan.refused) - len(new)
    counts = f"{predicted} cases predicted, {flagged} of them flagged, {refused} refused"
    return Outcome(
        kind="predicted" if predicted else "unchanged",
        reason=f"{counts}, {known} known before; see {folder}{PAGE}",
        model=plan.model,
    )

"""The table of all predictions of a model version, its page and the outcome."""

import io
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.predict.joining import join_predictions, parquet_table
from components.predict.planning import InferencePlan
from components.predict.stored import CaseRow, StoredPredictions
from components.shared.storage.store import FolderStore
from tests.components.predict.test_stored import row

MODEL = "models:/brainseg/7"
PLAN = InferencePlan(model=MODEL, source="in", cases=("b", "c"), refused={"d": "no FLAIR"}, known=1)


def of_model(volume, **changes):
    return row(volume, model=MODEL, **changes)


@pytest.fixture
def store(tmp_path):
    store = FolderStore(tmp_path)
    predictions = StoredPredictions(store, MODEL)
    refused = {"status": "refused", "digest": "", "reason": "damaged"}
    for each in (
        of_model("a", pipeline_run="run-0", site="CS", tumour_pixels=3),
        of_model("b", flags=("uncertain", "large"), mean_entropy=0.5, tumour_ml=1.5),
        of_model("c", **refused),
        of_model("e", **refused, pipeline_run="run-0"),  # it is gone
        of_model("e", **refused, source="elsewhere", pipeline_run="run-0"),
    ):
        predictions.write_row(each)
    return store


def test_the_table_has_the_rows_of_all_runs(store):
    joined = join_predictions(PLAN, store, "run-1")
    rows = pq.read_table(io.BytesIO(joined.table)).to_pylist()
    assert [(each["volume"], each["status"], each["source"]) for each in rows] == [
        ("a", "ok", "in"),
        ("b", "ok", "in"),
        ("c", "refused", "in"),
        ("d", "refused", "in"),
        ("e", "refused", "elsewhere"),
    ]
    assert (rows[0]["site"], rows[0]["tumour_pixels"], rows[0]["tumour_ml"]) == ("CS", 3, None)
    assert rows[1]["flags"] == ["uncertain", "large"]
    assert rows[1]["predicted_at"] == datetime(2026, 12, 1, tzinfo=UTC)
    assert store.read("predictions/brainseg/7/predictions.parquet") == joined.table
    again = join_predictions(PLAN, store, "run-1")
    assert pq.read_table(io.BytesIO(again.table)).num_rows == 5


def test_the_outcome_counts_the_cases_of_the_run(store):
    joined = join_predictions(PLAN, store, "run-1")
    assert (joined.predicted, joined.outcome.kind, joined.outcome.model) == (1, "predicted", MODEL)
    assert joined.outcome.reason == (
        "1 cases predicted, 1 of them flagged, 2 refused, 1 known before; see "
        f"{store.uri}/predictions/brainseg/7/report.html"
    )
    other = join_predictions(PLAN, store, "run-2").outcome
    assert other.kind == "unchanged"
    assert other.reason.startswith("0 cases predicted, 0 of them flagged, 1 refused, 3 known")


def test_the_page_separates_this_run_from_earlier_ones(store):
    page = join_predictions(PLAN, store, "run-1").page
    assert store.read("predictions/brainseg/7/report.html").decode() == page
    this, _, earlier = page.rpartition("Cases of earlier runs")
    assert "uncertain, large" in this
    assert "uncertain, large" not in earlier
    assert "no FLAIR" in earlier


def test_a_table_without_rows_has_the_types_of_one_with():
    schemas = [
        pq.read_schema(io.BytesIO(parquet_table(rows))) for rows in ([], [row(tumour_ml=0.5)])
    ]
    assert schemas[0] == schemas[1]
    assert schemas[0].names == list(CaseRow.columns([]))
    assert schemas[0].field("tumour_pixels").type == pa.int64()
    assert schemas[0].field("flags").type == pa.list_(pa.string())


def test_further_targets_are_columns():
    core = {"tumour_pixels": 7, "tumour_ml": 0.25}
    rows = [row("case-1", further={"core": core}), row("case-2", status="refused", reason="no")]
    found = pq.read_table(io.BytesIO(parquet_table(rows)))
    assert found["core_tumour_pixels"].to_pylist() == [7, None]
    assert found["core_tumour_ml"].to_pylist() == [0.25, None]
    assert "further" not in found.column_names

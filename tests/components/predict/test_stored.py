"""Predictions in the store: keys, rows and the origin of a version."""

from datetime import UTC, datetime

import pytest

from components.predict.stored import CaseRow, StoredPredictions, version_folder
from components.shared.errors import UserError
from components.shared.storage.store import FolderStore

MODEL = "models:/brain seg/7"


def row(volume="case-1", **changes):
    values = {
        "volume": volume,
        "model": MODEL,
        "source": "in",
        "pipeline_run": "run-1",
        "digest": "ab" * 32,
        "predicted_at": datetime(2026, 12, 1, tzinfo=UTC),
    }
    return CaseRow(**values | changes)


@pytest.fixture
def predictions(tmp_path):
    return StoredPredictions(FolderStore(tmp_path), MODEL)


def test_a_version_has_a_folder():
    assert version_folder(MODEL) == "predictions/brain seg/7/"
    assert version_folder("models:/a%b/7") == "predictions/a%25b/7/"
    for uri in ("models:/../7", "models:/seg@champion", "models:/a/b/7", "models:/seg/-1"):
        with pytest.raises(UserError, match="belong to a registered version"):
            version_folder(uri)


def test_of_two_rows_of_equal_content_the_first_counts(predictions):
    predictions.write_row(row(seconds=1.0))
    predictions.write_row(row(seconds=2.0))
    predictions.write_row(row(seconds=3.0, digest="cd" * 32))
    assert [each.seconds for each in predictions.rows()] == [1.0, 3.0]
    assert predictions.has_row("case-1", "ab" * 32)
    assert not predictions.has_row("case-2", "ab" * 32)


def test_a_refusal_is_replaced_and_ends_with_a_prediction(predictions):
    for reason in ("damaged", "truncated"):
        predictions.write_row(row(status="refused", reason=reason, digest=""))
    predictions.write_row(row("case-1", status="refused", source="elsewhere", digest=""))
    reasons = {(each.source, each.reason) for each in predictions.rows()}
    assert reasons == {("in", "truncated"), ("elsewhere", "")}
    predictions.write_row(row())
    predictions.mark_seen("5ee4", "in", "case-1")
    assert [(each.source, each.status) for each in predictions.rows()] == [
        ("elsewhere", "refused"),
        ("in", "ok"),
    ]
    assert predictions.seen() == {"5ee4"}


def test_old_refusals_are_forgotten(predictions):
    for name in ("gone", "kept"):
        predictions.write_row(row(name, status="refused", digest=""))
    predictions.forget_refusals(lambda each: each.volume == "gone")
    assert [each.volume for each in predictions.rows()] == ["kept"]


def test_a_folder_belongs_to_one_origin(predictions):
    predictions.claim("run-a")
    predictions.claim("run-a")
    with pytest.raises(UserError, match=r"model with this name and number, .*run-a.*run-b"):
        predictions.claim("run-b")

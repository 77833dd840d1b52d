import pytest
from pydantic import ValidationError

from components.shared.dataset.ingest_account import IngestAccount, Quarantined


@pytest.fixture
def account():
    return IngestAccount(
        source="somewhere",
        dataset_id="0123",
        volumes=2,
        slices=40,
        tumour_slices=13,
        quarantined=(Quarantined("a", "empty", ("a/1", "a/2")), Quarantined("b", "torn", ("b/1",))),
        ignored={"not a TIFF": 4, "identical copy": 1},
        files_found=88,
        files_accepted=80,
        objects_written=2,
        bytes_written=1000,
        warnings=(),
    )


def test_every_file_is_in_one_place(account):
    assert account.files_quarantined == 3
    assert account.accounting() == (
        "88 files found = 80 in 2 accepted volumes + 3 in 2 quarantined volumes + 5 ignored"
    )
    ignored = sum(account.ignored.values())
    assert account.files_found == account.files_accepted + account.files_quarantined + ignored


def test_reads_back_what_was_written(account):
    assert IngestAccount.model_validate_json(account.model_dump_json()) == account


def test_refuses_what_another_release_wrote(account):
    with pytest.raises(ValidationError, match="Extra inputs"):
        IngestAccount.model_validate({**account.model_dump(), "more": 1})

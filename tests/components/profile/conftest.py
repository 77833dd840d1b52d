import pytest

from components.shared.dataset.ingest_account import IngestAccount


@pytest.fixture(scope="session")
def make_account():
    """Report of ingest, by default on a source without any problem."""

    def make_account(**changes):
        values = {
            "source": "somewhere",
            "dataset_id": "0123",
            "volumes": 20,
            "slices": 800,
            "tumour_slices": 260,
            "quarantined": (),
            "ignored": {},
            "files_found": 1600,
            "files_accepted": 1600,
            "objects_written": 0,
            "bytes_written": 0,
            "warnings": (),
        }
        return IngestAccount.model_validate(values | changes)

    return make_account

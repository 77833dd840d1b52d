import pytest

from components.shared.report.kept import keep_report
from components.shared.storage.store import open_store


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_the_sentence_has_the_address_of_the_report(kind, tmp_path, request):
    uri = str(tmp_path) if kind == "folder" else request.getfixturevalue("s3_store_uri")
    store = open_store(uri)
    sentence = [keep_report(store, "profile.html", b"<html></html>", noun="page") for _ in range(2)]
    (key,) = store.keys("reports/")
    assert sentence == [f"The page {uri}/{key} shows more"] * 2
    assert store.read(key) == b"<html></html>"


def test_a_store_that_refuses_does_not_hide_the_reason(tmp_path):
    (tmp_path / "file").touch()
    sentence = keep_report(open_store(str(tmp_path / "file")), "profile.html", b"", noun="page")
    assert sentence.startswith(
        f"The page could not be stored: store {tmp_path}/file: a file stands"
    )

import json

import pytest

from components.shared.errors import UserError
from pipelines.placement.images import Images, read_images

DIGEST = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("images", "name"),
    [
        (Images(), "brainseg-data-python:1"),
        (Images(registry="r.example:5000/a/b"), "r.example:5000/a/b/brainseg-data-python:1"),
        (
            Images(registry="r.example", digests={"brainseg-data-python": DIGEST}),
            f"r.example/brainseg-data-python@{DIGEST}",
        ),
    ],
)
def test_an_image_is_named_by_registry_and_digest_where_they_are_given(images, name):
    assert images.full_name("brainseg-data-python:1") == name


@pytest.mark.parametrize("registry", ["https://r.example", "r.example/", "r.example/A B", "/a"])
def test_a_registry_of_another_form_is_refused(registry):
    with pytest.raises(UserError, match=r"images\.registry"):
        read_images(registry)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json", "is not JSON; `make push`"),
        ('{"a": "sha256:12"}', "should match pattern"),
        ("[1]", "images.digests"),
    ],
)
def test_digests_of_another_form_are_refused(tmp_path, content, message):
    (tmp_path / "digests.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read_images("r.example", tmp_path / "digests.json")


def test_missing_digests_are_told(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_images("r.example", tmp_path / "none.json")


def test_digests_are_read_as_make_push_writes_them(tmp_path):
    (tmp_path / "digests.json").write_text(json.dumps({"brainseg-data-python": DIGEST}))
    images = read_images("r.example", tmp_path / "digests.json")
    assert images.digests == {"brainseg-data-python": DIGEST}

import pytest
from pydantic import TypeAdapter, ValidationError

from components.shared.kubernetes_names import (
    DataKey,
    LabelKey,
    LabelKeyOrNone,
    LabelValue,
    ObjectName,
    ObjectNameOrNone,
    QueueNameOrNone,
)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (ObjectName, ["a", "brainseg-store", "v1.brainseg", "0", "a" * 253]),
        (ObjectNameOrNone, ["", "brainseg-run"]),
        (QueueNameOrNone, ["", "team-a", "a" * 63]),
        (LabelKey, ["pool", "A_b.c-d", "nvidia.com/gpu", f"{'a' * 253}/{'b' * 63}"]),
        (LabelKeyOrNone, ["", "nvidia.com/gpu"]),
        (LabelValue, ["", "true", "A_b.c-d", "1", "a" * 63]),
        (DataKey, ["AWS_ACCESS_KEY_ID", "ca.crt", ".netrc", "-", "a..b"]),
    ],
)
def test_what_kubernetes_takes_is_taken(kind, names):
    for name in names:
        assert TypeAdapter(kind).validate_python(name) == name


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (ObjectName, ["", "My-Secret", "a b", "-a", "a-", "a..b", "a_b", "a\n", "ä", "a" * 254]),
        (ObjectNameOrNone, ["Run", " "]),
        (QueueNameOrNone, ["My Queue", "team_a", "a" * 64]),
        (
            LabelKey,
            ["", "a b", "-a", "/a", "a/", "A/b", "a/b/c", "a" * 64, f"{'a' * 254}/b", "a\n"],
        ),
        (LabelKeyOrNone, ["a b", "/"]),
        (LabelValue, ["a b", "-a", "a.", "a/b", "ä", "a\n", "a" * 64]),
        (DataKey, ["", ".", "..", "..a", "a b", "a/b", "a\n", "a" * 254]),
    ],
)
def test_what_kubernetes_refuses_is_refused_with_what_is_allowed(kind, names):
    for name in names:
        with pytest.raises(ValidationError, match=r"must be .*, at most \d+ characters"):
            TypeAdapter(kind).validate_python(name)

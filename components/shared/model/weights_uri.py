"""Forms of the settings that name weights."""

import re

WEIGHTS_FORMS = (
    "an absolute path, s3://bucket/file, https://host/file, models:/NAME/VERSION, runs:/ID/FOLDER "
    "or package:NAME/file"
)
IMAGENET = "imagenet:"  # and an encoder: the weights that the libraries publish
# an address with a password would stand in MLflow and in reports
_URI = re.compile(
    r"(/|file:///|s3://[^/]+/|https?://[^/@]+/|models:/|runs:/[^/]+/|package:\w+/)[^/].*[^/\s]"
)


def is_weights_uri(value: str) -> bool:
    """Returns whether a value has one of the forms of `WEIGHTS_FORMS`."""
    return bool(_URI.fullmatch(value))


def check_encoder_weights(value: str) -> str:
    """Returns a value of `encoder_weights`.

    Raises:
        ValueError: If it has another form.
    """
    if value in ("imagenet", "none") or is_weights_uri(value):
        return value
    raise ValueError(f"must be imagenet, none, {WEIGHTS_FORMS}")


def check_initial_weights(value: str) -> str:
    """Returns a value of `initial_weights`.

    Raises:
        ValueError: If it has another form.
    """
    if value == "champion" or is_weights_uri(value):
        return value
    raise ValueError(f"must be champion, {WEIGHTS_FORMS}")

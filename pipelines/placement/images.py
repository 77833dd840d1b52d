"""Full names of the steps' images."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from components.shared.config import Config, build_config
from components.shared.errors import UserError


def _check_registry(text: str) -> str:
    if not re.fullmatch(r"([A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*)?", text):
        raise ValueError(
            "must be a host and folder without https:// and without a slash at the end, "
            "e.g. registry.example/team"
        )
    return text


Registry = Annotated[str, AfterValidator(_check_registry)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class Images(Config):
    """The full names of the images.

    Attributes:
        registry: Host and folder, e.g. registry.example/team; empty for images that nodes have.
        digests: Image -> digest, as `make push` writes them; empty for images with tags.
    """

    registry: Registry = ""
    digests: Mapping[str, Digest] = {}

    def full_name(self, image: str) -> str:
        """Return the name that a cluster pulls; raises `UserError` if only others have digests."""
        name = image.partition(":")[0]
        if self.digests and name not in self.digests:
            raise UserError(
                f"the digests are of {', '.join(self.digests)} and not of {name}; "
                "build and push all images together: make push"
            )
        pinned = f"{name}@{self.digests[name]}" if self.digests else image
        return f"{self.registry}/{pinned}" if self.registry else pinned


NODES_OWN = Images()


def read_images(registry: str = "", digests: Path | None = None) -> Images:
    """Return the images of a registry.

    Args:
        registry: Host and folder, without https:// and without a slash at the end.
        digests: JSON file of image -> sha256:..., as `make push` writes it.

    Raises:
        UserError: If a name or digest has another form, or the file cannot be read.
    """
    try:
        found = json.loads(digests.read_text()) if digests else {}
    except OSError as error:
        raise UserError(f"digests {digests} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(
            f"digests {digests} is not JSON; `make push` writes it: image -> sha256:..."
        ) from error
    return build_config(Images, {"registry": registry, "digests": found}, "images")

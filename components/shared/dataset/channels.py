"""Channels of a data set's images, and the targets in its label maps."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from components.shared.config import Record

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.+-]{0,39}$")]
VoxelType = Literal["uint8", "int16", "float32"]


class Channels(Record):
    """Channels of an image, in order; the defaults are those of the LGG set.

    Attributes:
        names: Name of each channel, e.g. `FLAIR`.
        reference: The channel that reports show. Where another one was not acquired, a copy of
            the reference replaces it.
        dtype: `uint8` for gray levels from 0 to 255 as they are; `float32` for any scale, which
            `gray_levels` maps to such levels.
    """

    names: tuple[Name, ...] = ("pre-contrast", "FLAIR", "post-contrast")
    reference: Name = "FLAIR"
    dtype: Literal["uint8", "float32"] = "uint8"

    @property
    def count(self) -> int:
        """Number of channels."""
        return len(self.names)

    @property
    def reference_index(self) -> int:
        """Place of the reference among the channels."""
        return self.names.index(self.reference)

    @model_validator(mode="after")
    def _are_distinct(self) -> Self:
        if not self.names or len(set(self.names)) != len(self.names):
            raise ValueError(f"channels must be one or more distinct names, not {self.names}")
        if self.reference not in self.names:
            listed = ", ".join(self.names)
            raise ValueError(f"reference {self.reference!r} is none of the channels {listed}")
        return self


class Target(Record):
    """A named structure that models find.

    Attributes:
        name: E.g. `tumour`.
        labels: Values of the label map that belong to it.
    """

    name: Name
    labels: tuple[Annotated[int, Field(ge=1, le=255)], ...] = Field(min_length=1)


LGG_CHANNELS = Channels()
LGG_LABELS = {"tumour": 1}
LGG_TARGETS = (Target(name="tumour", labels=(1,)),)

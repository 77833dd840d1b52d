"""A check and its thresholds."""

from dataclasses import dataclass
from typing import Literal

from pipelines.extras import DISTRIBUTION

Status = Literal["ok", "warning", "error", "unknown"]

INSTALL = f"pip install '{DISTRIBUTION}[all]' (or `make run` in a clone)"
OTHER_PLACE = "change its rights, or choose another place"
GIB = 2**30


@dataclass(frozen=True)
class Check:
    """One result of the doctor.

    Attributes:
        name: Subject, in a word or two.
        status: `warning` works but slowly or not for all; `error` will fail; `unknown` cannot be
            seen from here.
        found: Present state.
        advice: Remedy; empty if none is needed.
    """

    name: str
    status: Status
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Thresholds:
    """Amounts of a resource below which a run fails (`error`), or may fail (`warning`)."""

    error: float
    warning: float

    def check(self, name: str, value: float, found: str, advice: str) -> Check:
        """Return the check of a value, with advice only if it is too small."""
        if value >= self.warning:
            return Check(name, "ok", found)
        return Check(name, "error" if value < self.error else "warning", found, advice)

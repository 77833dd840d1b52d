"""What a check finds."""

from dataclasses import dataclass
from typing import Literal

from pipelines.extras import DISTRIBUTION

Status = Literal["ok", "warning", "error", "unknown"]

INSTALL = f"pip install '{DISTRIBUTION}[all]' (or `make run` in a clone)"
OTHER_PLACE = "change its rights, or choose another place"
GIB = 2**30


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: What was looked at, a word or two.
        status: `warning` works but slowly or not for all; `error` will fail; `unknown` cannot be
            seen from here.
        found: What is the case.
        advice: What to do; empty if nothing.
    """

    name: str
    status: Status
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Thresholds:
    """What there must be at least.

    Attributes:
        error: With less a run fails.
        warning: With less it may, or is slow.
    """

    error: float
    warning: float

    def check(self, name: str, value: float, found: str, advice: str) -> Check:
        """The finding for a value; advice is given only where it is too small."""
        if value >= self.warning:
            return Check(name, "ok", found)
        return Check(name, "error" if value < self.error else "warning", found, advice)

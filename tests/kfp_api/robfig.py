"""What github.com/robfig/cron v1.2.0 takes; KFP's API server and controller read cron with it.

tests/pipelines/kubeflow/test_cron.py compares it with the Go module itself.
"""

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_BOUNDS = (
    (0, 59, {}),
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, {name: number for number, name in enumerate(_MONTHS, start=1)}),
    (0, 6, {name: number for number, name in enumerate(_DAYS)}),
)
_DESCRIPTORS = {"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"}


class CronError(Exception):
    """The expression is not taken."""


def parse(expression: str) -> None:
    """Reads five or six fields: the day of the week is the one that may be missing.

    Raises:
        CronError: If the module would return an error. `@every DURATION` is not read here.
    """
    if not expression:
        raise CronError("Empty spec string")
    if expression.startswith("@"):
        if expression not in _DESCRIPTORS:
            raise CronError(f"Unrecognized descriptor: {expression}")
        return
    fields = expression.split()
    if not 5 <= len(fields) <= 6:
        raise CronError(f"Expected 5 to 6 fields, found {len(fields)}: {expression}")
    for field, bounds in zip(fields, _BOUNDS, strict=False):
        for part in filter(None, field.split(",")):
            _check_range(part, *bounds)


def _check_range(part: str, low: int, high: int, names: dict[str, int]) -> None:
    ends, *steps = part.split("/")
    first, *rest = ends.split("-")
    if len(steps) > 1:
        raise CronError(f"Too many slashes: {part}")
    if first in ("*", "?"):
        begin, end = low, high
    else:
        begin = _number(first, names)
        end = _end(part, begin, rest, names)
    step = _number(steps[0], {}) if steps else 1
    if steps and not rest:
        end = high
    if begin < low or end > high or begin > end or step == 0:
        raise CronError(f"Range is out of bounds ({low} to {high}): {part}")


def _end(part: str, begin: int, rest: list[str], names: dict[str, int]) -> int:
    if len(rest) > 1:
        raise CronError(f"Too many hyphens: {part}")
    return _number(rest[0], names) if rest else begin


def _number(text: str, names: dict[str, int]) -> int:
    if text.lower() in names:
        return names[text.lower()]
    digits = text[1:] if text[:1] in ("+", "-") else text  # as Go's strconv.Atoi
    if not (digits.isascii() and digits.isdigit()) or text.startswith("-"):
        raise CronError(f"Failed to parse int from {text}")
    if int(digits) >= 2**63:
        raise CronError(f"Failed to parse int from {text}")
    return int(digits)

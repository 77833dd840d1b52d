"""Cron expressions: five fields for people, six for Kubeflow's controller.

The controller reads cron with github.com/robfig/cron v1.2.0. It expects six fields with seconds
first, and the last may be missing, so five fields mean something else ("0 3 * * *" is every hour
at minute 3). It has no Sunday 7 and no zone. It takes a date that does not occur within five years
for one that has passed.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from components.shared.errors import UserError

_FORM = "minute hour day-of-month month day-of-week, e.g. '0 3 * * *' (every day at 3:00 UTC)"
_CRONSIMS_OWN = re.compile("[L#?]")  # the last day, the nth day of the week
_CYCLE = range(2001, 2029)  # every sequence of leap years and days of the week
_LIMIT_YEARS = 5  # SpecSchedule.Next of robfig/cron v1.2.0


@dataclass(frozen=True)
class Cron:
    """A schedule in UTC: minute, hour, day of month, month and day of week, as given."""

    fields: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.fields)

    @property
    def six_fields(self) -> str:
        """The controller's form: seconds first, names and ranges expanded, Sunday is 0.

        A leading star of a field stays: it means for both readers that both day fields must match,
        not only one.
        """
        read = _read(self.fields)
        weekdays = {day % 7 for day in read.weekdays if isinstance(day, int)}
        values = (read.minutes, read.hours, read.days, read.months, weekdays)
        return " ".join(["0", *map(_write, self.fields, values)])


def parse_cron(text: str) -> Cron:
    """Reads five fields of numbers, names (`MON`, `JAN`), `*`, lists, ranges and steps.

    Raises:
        UserError: If it has another form, or its date never occurs or too rarely.
    """
    fields = tuple(text.upper().split())
    if len(fields) != 5:
        raise UserError(f"cron {text!r} has {len(fields)} fields, not five: {_FORM}")
    if found := _CRONSIMS_OWN.search(f"{fields[2]} {fields[4]}"):
        raise UserError(f"cron {text!r}: Kubeflow does not know {found[0]!r}; give {_FORM}")
    _read(fields)
    cron = Cron(fields)
    begins = (datetime(year, 1, 1, tzinfo=UTC) - timedelta(seconds=1) for year in _CYCLE)
    if any(next_times(cron, each, 1)[0].year > each.year + _LIMIT_YEARS for each in begins):
        raise UserError(
            f"cron {text!r} has gaps of more than {_LIMIT_YEARS} years, and Kubeflow's controller "
            "then takes the date for one that has passed; choose a more frequent one"
        )
    return cron


def next_times(cron: Cron, after: datetime, number: int = 5) -> list[datetime]:
    """The first start times after a time, in UTC."""
    return list(islice(CronSim(str(cron), after.astimezone(UTC)), number))


def require_utc(zone: str) -> None:
    """Refuses every zone but UTC, in which the controller runs, with an alternative."""
    try:
        known = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UserError(f"time zone {zone!r} is not known; give UTC") from error
    months = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=30 * n) for n in range(12))
    offsets = {month.astimezone(known).utcoffset() for month in months}
    if offsets == {timedelta()}:
        return
    why = "has summer time" if len(offsets) > 1 else "is not UTC"
    raise UserError(
        f"time zone {zone} {why}, and Kubeflow's schedules are in UTC: write the cron in UTC, or "
        f"use the Kubernetes CronJob in manifests/schedules (timeZone: {zone}), which submits a "
        "run"
    )


def _read(fields: Sequence[str]) -> CronSim:
    text, any_time = " ".join(fields), datetime(2001, 1, 1, tzinfo=UTC)
    try:
        return CronSim(text, any_time)
    except CronSimError as error:
        with suppress(CronSimError):
            CronSim(" ".join([*fields[:3], "*", fields[4]]), any_time)
            CronSim(f"* * * {fields[3]} *", any_time)
            raise UserError(f"cron {text!r}: this date never occurs") from error
        raise UserError(f"cron {text!r}: {str(error).lower()}; give {_FORM}") from error


def _write(given: str, numbers: set[int]) -> str:
    star, _, more = given.partition(",") if given.startswith("*") else ("", "", given)
    listed = map(str, sorted(numbers)) if more else ()
    return ",".join([star, *listed] if star else listed)

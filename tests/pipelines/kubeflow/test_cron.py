import itertools
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.shared.errors import UserError
from pipelines.kubeflow.cron import next_times, parse_cron, require_utc
from tests.kfp_api import robfig

NOW = datetime(2026, 11, 25, 2, 30, 15, tzinfo=UTC)
SOURCE = Path(__file__).parent / "robfig"


@pytest.fixture(scope="module")
def controller(tmp_path_factory):
    """Asks the Go module itself: None if it refuses, else the next times (an epoch of 0: never)."""
    if shutil.which("go") is None:
        pytest.skip("no Go: github.com/robfig/cron cannot be built")
    program = tmp_path_factory.mktemp("robfig") / "robfig"
    built = subprocess.run(
        ["go", "build", "-o", program, "."], cwd=SOURCE, capture_output=True, text=True, check=False
    )
    if built.returncode:
        pytest.skip(f"github.com/robfig/cron cannot be had: {built.stderr[-300:]}")
    pipe = subprocess.PIPE
    with subprocess.Popen([program], stdin=pipe, stdout=pipe, text=True, bufsize=1) as running:

        def ask(expression, start=NOW):
            running.stdin.write(f"{int(start.timestamp())}\t{expression}\n")
            answer = running.stdout.readline().strip()
            return None if answer == "error" else [int(epoch) for epoch in answer.split()]

        yield ask
        running.stdin.close()


def part(low, high, names=()):
    number = st.integers(low, high)
    pair = st.tuples(number, number).map(sorted)
    step = st.integers(1, high + 3)
    named = [st.sampled_from(names)] if names else []
    return st.one_of(
        number.map(str),
        *named,
        pair.map(lambda ends: f"{ends[0]}-{ends[1]}"),
        st.builds(lambda ends, by: f"{ends[0]}-{ends[1]}/{by}", pair, step),
        st.builds(lambda begin, by: f"{begin}/{by}", number, step),
        step.map(lambda by: f"*/{by}"),
    )


def field(low, high, names=()):
    lists = st.lists(part(low, high, names), min_size=1, max_size=3).map(",".join)
    return st.one_of(st.just("*"), lists, lists.map(lambda text: f"{text},*"))


EXPRESSIONS = st.tuples(
    field(0, 59),
    field(0, 23),
    field(1, 31),
    field(1, 12, ("JAN", "feb", "Dec")),
    field(0, 7, ("SUN", "mon", "Sat")),
).map(" ".join)
STARTS = st.integers(0, 60 * 366 * 24 * 20).map(lambda n: NOW + timedelta(minutes=n))


def parsed(text):
    try:
        return parse_cron(text), ""
    except UserError as error:
        return None, str(error)


@given(EXPRESSIONS, STARTS)
def test_what_is_shown_is_when_the_controller_runs(controller, expression, start):
    cron, refusal = parsed(expression)
    if cron is None:
        assert "never occurs" in refusal or "gaps of more than" in refusal
    else:
        shown = [int(time.timestamp()) for time in next_times(cron, start)]
        assert controller(cron.six_fields, start) == shown


@given(st.text("0123456789*/-, ?LSUNjan", max_size=24))
def test_whatever_is_taken_the_controller_takes_too(controller, text):
    cron, _ = parsed(text)
    if cron is not None:
        assert controller(cron.six_fields)[0] != 0


@given(
    st.lists(
        st.one_of(
            st.text("0123456789*/-,?+ SUNjan", min_size=1, max_size=5),
            field(0, 60, ("MON", "Feb")),
        ),
        min_size=3,
        max_size=7,
    ).map(" ".join)
)
def test_the_test_server_takes_the_expressions_that_the_controller_takes(controller, text):
    try:
        robfig.parse(text)
    except robfig.CronError:
        assert controller(text) is None
    else:
        assert controller(text) is not None


def test_five_fields_would_mean_something_else_to_the_controller(controller):
    hourly = controller("0 3 * * *")
    assert [later - sooner for sooner, later in itertools.pairwise(hourly)] == [3600] * 4
    assert parse_cron("0 3 * * *").six_fields == "0 0 3 * * *"


def test_a_date_that_never_comes_is_refused_for_the_controller_would_loop(controller):
    assert controller("0 0 0 31 2 *") == [0]
    for text in ("0 0 31 2 *", "0 0 30 feb *", "0 0 31 4,6,9,11 *"):
        with pytest.raises(UserError, match="this date never occurs"):
            parse_cron(text)


def test_a_date_that_comes_too_seldom_is_refused_for_the_controller_would_miss_it(controller):
    """29 February on a Sunday is AND, since the star makes it so: every 28 years."""
    assert 0 in controller("0 0 0 29 2 */7")
    with pytest.raises(UserError, match="more than 5 years"):
        parse_cron("0 0 29 2 */7")
    assert [time.year for time in next_times(parse_cron("0 0 29 2 *"), NOW, 2)] == [2028, 2032]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("*/15 9-17 * * 1-5", "0 */15 9,10,11,12,13,14,15,16,17 * * 1,2,3,4,5"),
        ("0 0 * * 7", "0 0 0 * * 0"),
        ("0 0 * jul sun,WED", "0 0 0 * 7 0,3"),
        ("0 0 1,*/10 * MON", "0 0 0 1,11,21,31 * 1"),
        ("0 0 */10,2 * MON", "0 0 0 */10,1,2,11,21,31 * 1"),
        ("0 0 1 * */3,7", "0 0 0 1 * */3,0,3,6"),
    ],
)
def test_fields_are_sent_as_the_controller_reads_them(given, sent):
    assert parse_cron(given).six_fields == sent


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0 0 3 * * *", "has 6 fields, not five"),
        ("@daily", "has 1 fields, not five"),
        ("TZ=Europe/Berlin 0 3 * * *", "has 6 fields"),
        ("", "has 0 fields"),
        ("61 * * * *", "bad minute"),
        ("0 24 * * *", "bad hour"),
        ("0 0 0 * *", "bad day-of-month"),
        ("0 0 * 13 *", "bad month"),
        ("0 0 * * 8", "bad day-of-week"),
        ("0 0 5-2 * *", "bad day-of-month"),
        ("0 0 L * *", "does not know 'L'"),
        ("0 0 * * MON#2", "does not know '#'"),
        ("0 0 ? * *", "does not know '?'"),
        ("*/0 * * * *", "bad minute"),
        ("٣ * * * *", "bad minute"),
    ],
)
def test_another_form_is_refused_with_the_one_that_is_known(text, told):
    with pytest.raises(UserError, match="minute hour day-of-month month day-of-week") as error:
        parse_cron(text)
    assert told in str(error.value)


def test_a_zone_with_summer_time_is_refused_with_the_way_out():
    with pytest.raises(UserError, match=r"Europe/Berlin has summer time.*manifests/schedules"):
        require_utc("Europe/Berlin")
    with pytest.raises(UserError, match=r"Asia/Tokyo is not UTC.*timeZone: Asia/Tokyo"):
        require_utc("Asia/Tokyo")


@pytest.mark.parametrize("zone", ["Middle/Earth", "", "../../etc/passwd"])
def test_a_zone_that_does_not_exist_is_refused(zone):
    with pytest.raises(UserError, match="is not known; give UTC"):
        require_utc(zone)


@pytest.mark.parametrize("zone", ["UTC", "Etc/UTC", "Africa/Abidjan"])
def test_a_zone_that_is_utc_is_taken(zone):
    require_utc(zone)

import functools
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from components.shared.errors import UserError
from components.shared.tracking.election import IDENTITY, claim, find_or_create
from components.shared.tracking.server import connect, open_experiment
from tests.components.conftest import BOTH_MLFLOWS

PROCESSES = 3


class Stopped(BaseException):
    """The process is killed."""


class Server:
    """The calls of MLflow that matter, each at once; a schedule says whose turn it is."""

    uri = tracking_uri = "a schedule"

    def __init__(self, order):
        self.order = order  # in which runs are listed: by clocks that may be wrong
        self.runs, self.turn, self.caller = {}, threading.Condition(), None
        self.waiting, self.killed = set(), set()

    def _take_turn(self):
        me = threading.get_ident()
        with self.turn:
            self.waiting.add(me)
            self.turn.notify_all()
            self.turn.wait_for(lambda: self.caller == me or me in self.killed)
            self.caller = None
            self.waiting.discard(me)
        if me in self.killed:
            raise Stopped

    def search_runs(self, *_, **__):
        """As MLflow on SQLite: reads which runs there are, and later what they have."""
        self._take_turn()
        alive = [run for run in self.runs.values() if run.alive]
        self._take_turn()
        found = []
        for run in sorted(alive, key=lambda run: run.info.run_id):
            data = SimpleNamespace(params=dict(run.params))
            found.append(SimpleNamespace(info=run.info, data=data))
        return found

    def create_run(self, *_, **__):
        self._take_turn()
        run_id = f"{self.order[len(self.runs)]}"
        info = SimpleNamespace(run_id=run_id)
        self.runs[run_id] = SimpleNamespace(info=info, params={}, alive=True)

    def log_param(self, run_id, key, value):
        self._take_turn()
        run = self.runs[run_id]
        if not run.alive or run.params.setdefault(key, value) != value:
            raise MlflowException("refused", INVALID_PARAMETER_VALUE)

    def delete_run(self, run_id):
        self._take_turn()
        self.runs[run_id].alive = False


def play(server, schedule, deaths):
    """Runs processes call by call in the order of the schedule; returns what they found."""
    found = {}
    server.killed.clear()  # a new thread may have the number of one that was killed before

    def work(number):
        try:
            found[number] = find_or_create(server, "0", "c0ffee", name="name", tags={})
        except Stopped:
            found[number] = None
        with server.turn:
            server.turn.notify_all()

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(PROCESSES)]
    for thread in threads:
        thread.start()
    everyone = [thread.ident for thread in threads]
    for step, number in enumerate([*schedule, *list(range(PROCESSES)) * 60]):
        with server.turn:
            # all that still run stand before their next call
            assert server.turn.wait_for(
                lambda: len(server.waiting) + len(found) == PROCESSES, timeout=120
            )
            if everyone[number] in server.waiting:
                if (number, step) in deaths:
                    server.killed.add(everyone[number])
                server.caller = everyone[number]
                server.waiting.discard(everyone[number])
                server.turn.notify_all()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    return found


numbers = st.integers(0, PROCESSES - 1)


@given(
    order=st.permutations(range(2 * PROCESSES)),
    schedule=st.lists(numbers, max_size=60),
    deaths=st.sets(st.tuples(numbers, st.integers(0, 59)), max_size=2),
)
# the first made its run and reads that it is the only one; it is superseded before it reads of what
@example(order=[1, 0, 2, 3, 4, 5], schedule=[1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 0], deaths=set())
def test_whatever_the_order_of_calls_and_whoever_dies_all_find_one_run(order, schedule, deaths):
    server = Server(order)
    found = play(server, schedule, deaths)
    later = play(server, [], set())
    ids = {run_id for run_id in [*found.values(), *later.values()] if run_id}
    assert len(ids) == 1
    assert {run.info.run_id for run in server.runs.values() if run.alive} == ids


def make(client, identity, name="a name"):
    experiment = open_experiment(client)
    return find_or_create(client, experiment, identity, name=name, tags={"colour": "red"})


@BOTH_MLFLOWS
def test_the_run_of_an_identity_is_found_again(any_mlflow):
    client, identity = connect(), uuid.uuid4().hex
    made = make(client, identity)
    assert make(client, identity, "another name") == made
    assert make(client, uuid.uuid4().hex) != made
    run = client.get_run(made)
    assert (run.info.run_name, run.data.tags["colour"]) == ("a name", "red")
    assert run.data.params == {IDENTITY: identity}


@BOTH_MLFLOWS
def test_candidates_of_a_process_that_died_are_used_or_deleted(any_mlflow):
    client, identity = connect(), uuid.uuid4().hex
    experiment = open_experiment(client)
    orphans = []
    for start in (2_000, 1_000, 3_000):
        run = client.create_run(experiment, tags={IDENTITY: identity}, start_time=start)
        orphans.append(run.info.run_id)
    client.log_param(orphans[2], IDENTITY, "superseded")
    assert make(client, identity) == orphans[1]
    stages = [client.get_run(run_id).info.lifecycle_stage for run_id in orphans]
    assert stages == ["deleted", "active", "deleted"]


class Counting:
    """A client that counts the calls of its methods."""

    def __init__(self, client):
        self._client, self.calls = client, 0

    def __getattr__(self, name):
        self.calls += 1
        return getattr(self._client, name)


def test_a_new_run_costs_few_calls_and_a_found_one_fewer(local_mlflow):
    client, identity = Counting(connect()), uuid.uuid4().hex
    make(client, uuid.uuid4().hex)
    client.calls = 0
    make(client, identity)
    new, client.calls = client.calls, 0
    make(client, identity)
    assert (new, client.calls) == (6, 2)


def test_a_server_that_does_not_list_its_own_run_is_reported():
    class Lagging:
        tracking_uri = "http://replica"

        def search_runs(self, *_, **__):
            return []

        def create_run(self, *_, **__):
            pass

    with pytest.raises(UserError, match="http://replica does not list a run that it has just"):
        find_or_create(Lagging(), "0", "c0ffee", name="name", tags={})


@BOTH_MLFLOWS
def test_of_all_who_race_for_a_run_one_takes_it_and_keeps_it(any_mlflow):
    client, names = connect(), [f"{number}" for number in range(6)]
    for _ in range(3):
        take = functools.partial(claim, client, client.create_run("0").info.run_id)
        with ThreadPoolExecutor(len(names)) as pool:
            taken = list(pool.map(take, names))
        assert taken.count(True) == 1
        assert [take(name) for name in names] == taken

"""Choice of threads for work of known durations.

`tests/benchmarks/threads.py` measures it next to a busy process.
"""

import logging
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.shared import threads
from components.shared.threads import FastestThreads, limit_threads, time_threads


@pytest.fixture(autouse=True)
def _same_threads_after():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Machine:
    """A machine whose work takes the given time for the number of threads that is set."""

    def __init__(self, monkeypatch, **seconds):
        self.now = 0.0
        self.seconds = {int(name[1:]): taken for name, taken in seconds.items()}
        self.rehearsals = 0
        monkeypatch.setattr(threads, "time_threads", self._time)

    def _time(self, work, most, *, warm):
        assert most == max(self.seconds)
        assert warm == (self.rehearsals > 0)
        work()
        self.rehearsals += 1
        self.now += (1 if warm else 2) * sum(self.seconds.values())
        return dict(self.seconds)

    def train(self, choice, steps):
        """Trains so many steps; returns the seconds they took with the rehearsals."""
        started = self.now
        for _ in range(steps):
            choice.rehearse(lambda: lambda: None)
            assert torch.get_num_threads() == choice.threads
            self.now += self.seconds[choice.threads]
        return self.now - started


@pytest.fixture
def machine(monkeypatch):
    """Two cores, of which a process may take one: the figures of a real training."""
    return Machine(monkeypatch, t2=0.205, t1=0.372)


@pytest.fixture
def choice(machine):
    return FastestThreads("training", 2, clock=lambda: machine.now)


ALONE, BUSY = {2: 0.205, 1: 0.372}, {2: 3.3, 1: 0.372}


class TestFastestThreads:
    def test_all_threads_alone(self, machine, choice):
        took = machine.train(choice, 1000)
        assert choice.threads == 2
        assert took < 1.04 * 1000 * ALONE[2]

    def test_one_thread_next_to_a_busy_process(self, machine, choice):
        machine.seconds = BUSY
        machine.train(choice, 1)
        assert choice.threads == 1

    @pytest.mark.parametrize("later", [1, 200])
    def test_a_busy_process_that_comes_later_is_noticed(self, machine, choice, later):
        machine.train(choice, later)
        machine.seconds = BUSY
        machine.train(choice, 20)
        assert choice.threads == 1

    def test_all_threads_again_when_it_has_gone(self, machine, choice):
        machine.seconds = BUSY
        machine.train(choice, 100)
        machine.seconds = ALONE
        took = machine.train(choice, 2000)
        assert choice.threads == 2
        assert took < 1.2 * 2000 * ALONE[2]

    @pytest.mark.parametrize("seconds", [BUSY, {2: 0.8, 1: 1.5}])
    def test_looking_takes_a_fortieth_of_the_time(self, machine, choice, seconds):
        machine.seconds = seconds
        machine.train(choice, 1)
        assert machine.train(choice, 5000) < 1.026 * 5000 * min(seconds.values())

    @given(one=st.floats(0.05, 20), both=st.floats(0.05, 20))
    def test_never_slower_than_one_thread(self, one, both):
        with pytest.MonkeyPatch.context() as patch:
            machine = Machine(patch, t2=both, t1=one)
            choice = FastestThreads("training", 2, clock=lambda: machine.now)
            machine.train(choice, 1)
            assert machine.train(choice, 2000) <= 1.06 * 2000 * one

    def test_one_line_a_change(self, machine, choice, caplog):
        caplog.set_level(logging.INFO)
        machine.train(choice, 100)
        machine.seconds = BUSY
        machine.train(choice, 1000)
        assert [record.getMessage() for record in caplog.records] == [
            "training with 2 of 2 CPU threads (ms a step: 205 with 2, 372 with 1)",
            "training with 1 of 2 CPU threads (ms a step: 3300 with 2, 372 with 1)",
        ]

    def test_a_single_thread_is_not_rehearsed(self, monkeypatch):
        machine = Machine(monkeypatch, t1=1.0)
        machine.train(FastestThreads("training", 1, clock=lambda: machine.now), 10)
        assert machine.rehearsals == 0


class TestTimeThreads:
    @pytest.fixture(autouse=True)
    def _clock(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(threads, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def _sleep(self, seconds):
        self.now += seconds

    def test_work_that_gains_is_done_with_all(self):
        seconds = time_threads(lambda: self._sleep(0.2 / torch.get_num_threads()), 8)
        assert list(seconds) == [8, 4]  # with 2 it would take twice as long as with 4
        assert threads._fastest(seconds) == 8

    def test_work_that_loses_is_done_with_one(self):
        seconds = time_threads(lambda: self._sleep(0.05 * torch.get_num_threads()), 6)
        assert list(seconds) == [6, 3, 1]
        assert threads._fastest(seconds) == 1

    def test_the_smallest_of_nearly_equal_numbers(self):
        assert threads._fastest({4: 1.05, 2: 1.0, 1: 1.02}) == 1
        assert threads._fastest({4: 1.0, 2: 1.05, 1: 1.3}) == 2
        assert threads._fastest({4: 1.0, 2: 1.2, 1: 1.3}) == 4

    def test_warm_work_is_done_once_with_each_number(self):
        done = []
        work = lambda: done.append(torch.get_num_threads()) or self._sleep(0.25)  # noqa: E731
        time_threads(work, 2, warm=True)
        assert done == [2, 1]
        time_threads(work, 2)
        assert done[2:] == [2, 2, 1, 1]

    def test_the_number_of_before_is_set_again(self):
        torch.set_num_threads(3)
        with pytest.raises(ZeroDivisionError):
            time_threads(lambda: 1 / 0, 2)
        assert torch.get_num_threads() == 3

    def test_the_choice_rests_on_these_times(self):
        """Next to a busy process work takes a tenth of the time with one thread."""
        choice = FastestThreads("training", 2, clock=lambda: self.now)
        choice.rehearse(lambda: lambda: self._sleep(BUSY[torch.get_num_threads()]))
        assert (choice.threads, torch.get_num_threads()) == (1, 1)


class TestLimitThreads:
    def test_no_more_threads_than_usable_cores(self, monkeypatch):
        monkeypatch.setattr(threads, "usable_cores", lambda: 3)
        torch.set_num_threads(8)
        assert limit_threads() == torch.get_num_threads() == 3

    def test_fewer_where_they_were_asked_for(self, monkeypatch):
        monkeypatch.setattr(threads, "usable_cores", lambda: 8)
        torch.set_num_threads(2)
        assert limit_threads() == torch.get_num_threads() == 2

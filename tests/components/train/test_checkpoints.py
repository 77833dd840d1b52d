import hashlib
import io
import json
import os
import pickle
import zipfile

import pytest
import torch

from components.shared.errors import UserError
from components.train.checkpoints import Checkpoints


class FakeTrainer:
    """Writes a file in the place of Lightning's trainer."""

    def __init__(self, content):
        self._content = content

    def save_checkpoint(self, path, weights_only):
        assert not weights_only
        torch.save(self._content, path)


@pytest.fixture
def attempt(store, tmp_path):
    """Opens the same training's checkpoints in a fresh folder, as another machine would."""
    folders = iter(range(100))
    return lambda: Checkpoints(store, "checkpoints/a", tmp_path / f"machine-{next(folders)}")


def _weights(value):
    return {"weight": torch.full((1, 2), float(value))}


def _store(checkpoints, epoch, best=None):
    checkpoints.write_last(FakeTrainer(f"state {epoch}"))
    checkpoints.store(epoch=epoch, best=None if best is None else _weights(best))


def _best(checkpoints):
    network = torch.nn.Linear(2, 1, bias=False)
    checkpoints.load_best(network)
    return network.weight[0, 0].item()


def _last(checkpoints):
    return torch.load(checkpoints.last(), weights_only=True)


def _files(store):
    return {key.rpartition("/")[2] for key in store.keys("checkpoints/")}


def stored_states(store, prefix):
    """Keys and contents of the states' files, newest first."""
    keys = [key for key in store.keys(f"{prefix}/") if "/state-" in key]
    return {key: json.loads(store.read(key)) for key in sorted(keys, reverse=True)}


def _states(store):
    return list(stored_states(store, "checkpoints/a").values())


def _flip_a_bit(store, name):
    data = bytearray(store.read(f"checkpoints/a/{name}"))
    data[-1] ^= 1
    store.write(f"checkpoints/a/{name}", bytes(data))


def test_the_first_attempt_finds_nothing(attempt):
    assert attempt().last() is None


def test_another_machine_goes_on_from_the_newest_state(attempt):
    first = attempt()
    _store(first, 1, best=10)
    _store(first, 2)
    assert _last(attempt()) == "state 2"
    assert _best(attempt()) == 10


def test_the_newest_state_says_where_it_stands(attempt):
    first = attempt()
    assert first.newest() is None
    _store(first, 1, best=10)
    assert str(attempt().newest()) == "epoch 1"


def test_an_attempt_marks_the_memory_as_short_for_later_ones(attempt):
    first = attempt()
    assert not first.is_memory_short()
    first.mark_memory_short()
    _store(first, 1, best=10)
    assert attempt().is_memory_short()


def test_only_the_two_newest_states_are_kept(attempt, store, tmp_path):
    checkpoints = attempt()
    for epoch in range(1, 6):
        _store(checkpoints, epoch, best=epoch)
    named = {state[file] for state in _states(store) for file in ("last", "best")}
    assert len(named) == 4
    assert _files(store) == {*named, "state-000005.json", "state-000004.json"}
    assert {path.name for path in tmp_path.glob("machine-0/**/*.*")} == named


def test_an_attempt_that_outlives_the_start_of_another_costs_it_nothing(attempt, store, caplog):
    """As on an unreachable node, whose pod was replaced."""
    late, ahead = attempt(), attempt()
    for epoch in (1, 2):
        _store(late, epoch, best=epoch)
    assert _last(ahead) == "state 2"
    for epoch in (3, 4):
        _store(ahead, epoch, best=10 * epoch)
    store.write("checkpoints/a/" + "0" * 64 + ".ckpt", b"uploaded, of no state yet")
    _store(late, 3, best=3)
    assert "0" * 64 + ".ckpt" in _files(store)
    assert [state["epoch"] for state in _states(store)] == [4, 3]
    assert _last(attempt()) == "state 4"
    assert _best(attempt()) == 40
    _store(ahead, 5)
    assert _last(attempt()) == "state 5"
    assert _best(attempt()) == 40
    assert not caplog.messages


@pytest.mark.parametrize("file", ["last", "best"])
@pytest.mark.parametrize("lost", [False, True])
def test_a_damaged_state_is_reported_and_the_one_before_is_used(attempt, store, caplog, file, lost):
    checkpoints = attempt()
    for epoch in (4, 8):
        _store(checkpoints, epoch, best=epoch)
    name = _states(store)[0][file]
    if lost:
        store.delete(f"checkpoints/a/{name}")
    else:
        _flip_a_bit(store, name)
    resumed = attempt()
    assert _last(resumed) == "state 4"
    assert f"the state after epoch 8 is not used: {name} is" in caplog.text
    assert "trying epoch 4" in caplog.text
    _store(resumed, 8)
    assert [state["epoch"] for state in _states(store)] == [8, 4]
    assert _best(attempt()) == 4


def test_without_a_whole_state_training_starts_again(attempt, store, caplog):
    _store(attempt(), 1, best=1)
    _flip_a_bit(store, _states(store)[0]["last"])
    assert attempt().last() is None
    assert "trying the start" in caplog.text


class Code:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self._folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self._folder),)


def replace_last(store, prefix, content):
    """Puts other content in the place of the newest state, under the digest that it has."""
    name = hashlib.sha256(content).hexdigest() + ".ckpt"
    store.write(f"{prefix}/{name}", content)
    key, newest = next(iter(stored_states(store, prefix).items()))
    store.write(key, json.dumps({**newest, "last": name}).encode())
    return name


def saved(content, **form):
    stream = io.BytesIO()
    torch.save(content, stream, **form)
    return stream.getvalue()


def _archive(pickled):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in {"data.pkl": pickled, "version": "3", "byteorder": "little"}.items():
            file.writestr(f"state/{name}", content)
    return stream.getvalue()


@pytest.mark.parametrize(
    "write",
    [
        saved,
        lambda code: saved(code, _use_new_zipfile_serialization=False),
        pickle.dumps,
        lambda code: _archive(pickle.dumps(code, protocol=2)),
        lambda _: _archive(b"\x80\x02R."),  # calls what is not there
        lambda _: _archive(b"\x80\x02"),  # has no end
        lambda _: b"",
    ],
)
def test_a_state_that_holds_code_is_not_used_though_its_digest_is_right(
    attempt, store, tmp_path, caplog, write
):
    checkpoints = attempt()
    for epoch in (4, 8):
        _store(checkpoints, epoch, best=epoch)
    code = Code(tmp_path / "it-ran")
    name = replace_last(store, "checkpoints/a", write(code))
    assert _last(attempt()) == "state 4"
    assert not (tmp_path / "it-ran").exists()
    reason = f"{name} holds code, or is no state; trying epoch 4"
    assert f"the state after epoch 8 is not used: {reason}" in caplog.text
    pickle.loads(pickle.dumps(code))
    assert (tmp_path / "it-ran").exists()  # it does run where it is loaded otherwise


@pytest.mark.parametrize("content", [b"", b"{", b'{"epoch": 8, "last": "../x", "best": null}'])
def test_a_state_whose_own_file_is_damaged_is_reported_and_the_one_before_is_used(
    attempt, store, caplog, content
):
    checkpoints = attempt()
    for epoch in (4, 8):
        _store(checkpoints, epoch, best=epoch)
    store.write("checkpoints/a/state-000008.json", content)
    resumed = attempt()
    assert _last(resumed) == "state 4"
    assert _best(attempt()) == 4
    assert "a stored state is not used: state-000008.json is damaged" in caplog.text
    _store(resumed, 6)
    assert [state["epoch"] for state in _states(store)] == [6, 4]


class Killed(BaseException):
    """Stands for SIGKILL."""


def test_a_kill_at_any_write_leaves_a_best_and_a_last_of_one_history(attempt, store, monkeypatch):
    """It once left the best of the new epoch with the previous state."""
    first = attempt()
    _store(first, 1, best=1)
    for survived in range(4):  # best, last, state, removal
        killed = attempt()
        killed.last()
        with monkeypatch.context() as patch:
            _kill_after(patch, store, survived)
            with pytest.raises(Killed):
                _store(killed, 2, best=2)
        resumed = attempt()
        state = _last(resumed)
        assert (state, _best(resumed)) == (("state 2", 2) if survived == 3 else ("state 1", 1))
    _store(resumed, 3, best=3)
    assert len(_files(store)) == 6


def _kill_after(patch, store, writes):
    done = []

    def counted(method):
        def call(*arguments):
            if len(done) == writes:
                raise Killed
            done.append(method)
            return method(*arguments)

        return call

    for name in ("upload", "write", "delete", "keys"):
        patch.setattr(store, name, counted(getattr(store, name)))


def test_damaged_best_weights_are_never_loaded(attempt, store):
    _store(attempt(), 1, best=1)
    _flip_a_bit(store, _states(store)[0]["best"])
    with pytest.raises(UserError, match=r"best epoch are lost from .*start the run again"):
        _best(attempt())


def test_a_damaged_local_file_is_fetched_again(attempt, tmp_path):
    checkpoints = attempt()
    _store(checkpoints, 1, best=1)
    for path in tmp_path.glob("machine-0/**/*.*"):
        path.write_bytes(b"zero")
    assert _last(checkpoints) == "state 1"
    assert _best(checkpoints) == 1


def test_no_local_file_is_left(attempt, tmp_path):
    checkpoints = attempt()
    _store(checkpoints, 1, best=1)
    checkpoints.remove_local()
    assert not [path for path in tmp_path.glob("machine-0/**/*") if path.is_file()]


def test_the_best_survives_in_a_bucket(s3_store_uri, tmp_path):
    from components.shared.storage.store import open_store

    store = open_store(s3_store_uri)
    _store(Checkpoints(store, "checkpoints/a", tmp_path / "one"), 1, best=7)
    other = Checkpoints(store, "checkpoints/a", tmp_path / "two")
    assert _last(other) == "state 1"
    assert _best(other) == 7

"""Thousands of archives that somebody has tampered with: none runs code, none ends in a traceback.

Most are refused by the check, and some change only what it forgets. The rest are loaded and run
in a process of their own, which an audit hook watches.
"""

import json
import random
import shutil
import zipfile
from collections import Counter

import pytest

from components.shared.model.archive import BadArchiveError, write_checked
from components.shared.model.model_folder import read_model_folder

JSON_MEMBERS = [
    "model/models/model.json",
    "model/data/weights/model_weights_config.json",
    "model/data/constants/model_constants_config.json",
]
NUMBERS = [0, 1, -1, 2**31, 2**40, 2**63 - 1, -(2**63), 2**63, 10**400, 1e308, -0.5, 0.5]
VALUES = [*NUMBERS, None, True, [], {}, "", [[]], {"as_int": 2}, {"as_none": True}, ["x"] * 1000]
TEXTS = [
    "torch.os.system",
    "torch.ops.aten.from_file.default",
    "torch.ops.higher_order.cond",
    "_operator.attrgetter",
    "#triton:x",
    "Pow(Integer(9), Pow(Integer(9), Integer(9)))",
    "../../../etc/passwd",
    "class",
    "__class__",
    "self",
    "x\ny",
    "x\0",
    '");import os#',
    "\ud800",
    "volume",
    "a" * 100_000,
]


class Fuzz:
    """Mutants of one archive; those that pass the check are kept by their kind."""

    def __init__(self, members, zipped, folder):
        self.members, self.zipped, self.folder = members, zipped, folder
        self.counts, self.survivors = Counter(), []
        self.sound = self.checked(zipped(members))

    def checked(self, data):
        given, written = self.folder / "given.pt2", self.folder / "written.pt2"
        given.write_bytes(data)
        write_checked(given, written)
        with zipfile.ZipFile(written) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    def attempt(self, kind, data):
        """Any other error than `BadArchiveError` ends the test here."""
        self.counts[kind] += 1
        try:
            if self.checked(data) != self.sound:
                self.survivors.append((kind, data))
        except BadArchiveError as error:
            reason = str(error)
            assert len(reason.splitlines()) == 1
            assert len(reason) < 800

    def attempt_json(self, kind, name, content):
        try:
            text = json.dumps(content).encode("utf-8", "surrogatepass")
        except ValueError:  # more digits than Python writes
            text = json.dumps(str(content)).encode()
        self.attempt(kind, self.zipped(self.members | {name: text}))

    def folders(self, sound):
        """A model folder for each survivor."""
        for number, (_, data) in enumerate(self.survivors):
            folder = self.folder / f"survivor{number}"
            (folder / "data").mkdir(parents=True)
            shutil.copy(sound / "MLmodel", folder)
            (folder / "data" / "model.pt2").write_bytes(data)
            yield folder


@pytest.fixture(scope="module")
def canary(tmp_path_factory):
    return tmp_path_factory.mktemp("canary") / "canary"


@pytest.fixture(scope="module")
def fuzz(small_members, zipped, tmp_path_factory, canary):
    fuzz = Fuzz(small_members, zipped, tmp_path_factory.mktemp("fuzz"))
    put_texts(fuzz, f"__import__('os').makedirs({str(canary)!r}, exist_ok=True)")
    change_values(fuzz, random.Random(1))
    change_members(fuzz, random.Random(2))
    change_bytes(fuzz, random.Random(3))
    return fuzz


def test_no_mutant_runs_code_or_ends_in_a_traceback(fuzz, canary, small_model, load_in_child):
    assert fuzz.counts["texts"] > 3000
    assert fuzz.counts.total() > 6000
    told = load_in_child([small_model, *fuzz.folders(small_model)])
    assert len(told) == len(fuzz.survivors)
    assert not canary.exists()
    assert [one for one in told if one["seen"]] == []
    assert [one for one in told if not one["answer"].startswith(("works", "refused: "))] == []
    works = Counter(
        kind
        for (kind, _), one in zip(fuzz.survivors, told, strict=True)
        if one["answer"] == "works"
    )
    assert 0 < works["values"] < fuzz.counts["values"] / 2
    assert works["bytes"] == 0  # every byte of what is loaded has a checksum


def places(content, path=()):
    """Paths to every value and every key below a JSON value."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in list(pairs):
        yield (*path, key), value
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def parent(content, path):
    for key in path[:-1]:
        content = content[key]
    return content


def put(content, path, value):
    parent(content, path)[path[-1]] = value


def rename(content, path, name):
    holder = parent(content, path)
    items = [(name if key == path[-1] else key, value) for key, value in holder.items()]
    holder.clear()
    holder.update(items)


def put_texts(fuzz, code):
    """Every text and every key once by code, once by something else that is hostile."""
    generator = random.Random(0)
    for name in JSON_MEMBERS:
        sound = fuzz.members[name]
        for path, value in places(json.loads(sound)):
            for text in (code, generator.choice(TEXTS)):
                if isinstance(value, str):
                    put(content := json.loads(sound), path, text)
                    fuzz.attempt_json("texts", name, content)
                if isinstance(path[-1], str):
                    rename(content := json.loads(sound), path, text)
                    fuzz.attempt_json("texts", name, content)


def change_values(fuzz, generator):
    for _ in range(1200):
        name = generator.choices(JSON_MEMBERS, (8, 2, 1))[0]
        content = json.loads(fuzz.members[name])
        path, value = generator.choice(list(places(content)))
        change_value(content, path, value, generator)
        fuzz.attempt_json("values", name, content)


def change_value(content, path, value, generator):
    holder, kind = parent(content, path), generator.randrange(4)
    if kind == 0 and isinstance(holder, list):
        holder.insert(path[-1], value)
    elif kind == 1:
        del holder[path[-1]]
    elif kind == 2:
        _, other = generator.choice(list(places(content)))
        holder[path[-1]] = json.loads(json.dumps(other))
    else:
        holder[path[-1]] = generator.choice([*VALUES, *TEXTS])


def change_members(fuzz, generator):
    for _ in range(500):
        members = dict(fuzz.members)
        for _ in range(generator.randint(1, 3)):
            change_member(members, generator)
        fuzz.attempt("members", fuzz.zipped(members))


def change_member(members, generator):
    name = generator.choice(list(members))
    other = generator.choice([*members, "model/data/constants/opaque_obj_0", *TEXTS[:-1]])
    other = other.encode(errors="replace").decode()
    kind = generator.randrange(5)
    if kind == 0:
        del members[name]
    elif kind == 1:
        members[other] = members.pop(name)
    elif kind == 2:
        members[other] = members[name]
    elif kind == 3:
        members[name] = members[name][: generator.randrange(len(members[name]) + 1)]
    else:
        nested = generator.choice([b"[", b'{"a":', b'{"graph_module":'])
        members[name] = nested * generator.choice([10, 100_000])


def change_bytes(fuzz, generator):
    sound = fuzz.zipped(fuzz.members)
    for _ in range(1000):
        data = bytearray(sound)
        # the list of members is at the end
        first = generator.choice([0, len(data) - 1500])
        for _ in range(generator.choice([1, 1, 4])):
            data[generator.randrange(first, len(data))] ^= 1 << generator.randrange(8)
        fuzz.attempt("bytes", bytes(data))
    for _ in range(300):
        fuzz.attempt("bytes", sound[: generator.randrange(len(sound))])


def test_no_change_of_the_description_ends_in_a_traceback(small_model, tmp_path):
    generator = random.Random(4)
    folder = tmp_path / "model"
    shutil.copytree(small_model, folder)
    description = folder / "MLmodel"
    sound, found = description.read_bytes(), []
    tags = [
        b"!!python/object/apply:os.system [x]",
        b"&a",
        b"*a",
        b"<<: ",
        b"[",
        b"{",
        b"\x00",
        b"? ",
    ]
    for _ in range(800):
        place = generator.randrange(len(sound))
        end = place + generator.choice([0, 1, 5, 200])
        changed = generator.choice([*tags, bytes([generator.randrange(256)])])
        description.write_bytes(sound[:place] + changed + sound[end:])
        try:
            found.append(read_model_folder(folder).program)
        except BadArchiveError as error:
            reason = str(error)
            assert len(reason.splitlines()) == 1
    assert 0 < len(found) < 800
    assert set(found) == {folder / "data" / "model.pt2"}

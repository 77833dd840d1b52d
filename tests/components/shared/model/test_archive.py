import json
import os
import pickle
import zipfile

import pytest

from components.shared.errors import UserError
from components.shared.model.archive import BadArchiveError, load_program, write_checked
from components.shared.model.segmenter import load_segmenter

PROGRAM = "model/models/model.json"
WEIGHTS = "model/data/weights/model_weights_config.json"
CONSTANTS = "model/data/constants/model_constants_config.json"
SAMPLE_INPUTS = "model/data/sample_inputs/model.pt"


class MakesFolder:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def in_expression(members, code, path):
    return rewrite(members, PROGRAM, lambda program: sizes(program)[0].update(expr_str=code))


def in_guards(members, code, path):
    return rewrite(members, PROGRAM, lambda program: program.update(guards_code=[code]))


def in_target(members, code, path):
    def change(program):
        node = next(node for node in nodes(program) if node["target"].endswith("sigmoid.default"))
        argument = {"name": "", "arg": {"as_string": path}, "kind": 1}
        node.update(target="torch.os.mkdir", inputs=[argument])
        program["verifiers"] = []

    return rewrite(members, PROGRAM, change)


def in_tree(members, code, path):
    def change(program):
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        tree = json.loads(signature["in_spec"])
        tree[1]["children_spec"][1]["context"] = json.dumps(
            {"__enum__": True, "fqn": "tabnanny:x", "name": "x"}
        )
        signature["in_spec"] = json.dumps(tree)

    return rewrite(members, PROGRAM, change)


def in_sample_inputs(members, code, path):
    return members | {SAMPLE_INPUTS: pickle.dumps(MakesFolder(path), 2)}


def in_weight(members, code, path):
    weight = next(name for name in members if name.endswith("weights/weight_0"))
    members = members | {weight: pickle.dumps(MakesFolder(path), 2)}
    return rewrite(members, WEIGHTS, lambda config: pickled(config, "weight_0"))


def in_opaque_constant(members, code, path):
    members = members | {"model/data/constants/opaque_obj_0": pickle.dumps(MakesFolder(path), 2)}
    return rewrite(members, CONSTANTS, lambda config: pickled(config, "opaque_obj_0"))


ATTACKS = [in_expression, in_guards, in_target, in_tree]
ATTACKS += [in_sample_inputs, in_weight, in_opaque_constant]


def rewrite(members, name, change):
    content = json.loads(members[name])
    change(content)
    return members | {name: json.dumps(content).encode()}


def nodes(program):
    return program["graph_module"]["graph"]["nodes"]


def sizes(program):
    values = program["graph_module"]["graph"]["sym_int_values"].values()
    return [value["as_expr"] for value in values if "as_expr" in value]


def pickled(config, path_name):
    entry = next(iter(config["config"].values()))
    entry.update(path_name=path_name, use_pickle=True)


def model_of(members, folder, small_model, zipped):
    (folder / "data").mkdir(parents=True)
    (folder / "MLmodel").write_bytes((small_model / "MLmodel").read_bytes())
    (folder / "data" / "model.pt2").write_bytes(zipped(members))
    return folder


@pytest.fixture
def attacked(tmp_path, small_model, small_members, zipped):
    """Model folders that make a folder, or import the module `tabnanny`, when they are trusted."""
    folders, proofs = [], []
    for attack in ATTACKS:
        folder, proof = tmp_path / attack.__name__, tmp_path / f"proof-{attack.__name__}"
        code = f"__import__('os').makedirs({str(proof)!r}, exist_ok=True)"
        members = attack(small_members, code, str(proof))
        folders.append(model_of(members, folder, small_model, zipped))
        proofs.append(proof)
    return folders, proofs


def ran(told, proofs):
    """Which attacks have run."""
    pairs = zip(told, proofs, strict=True)
    return {
        proof.name.removeprefix("proof-")
        for one, proof in pairs
        if proof.exists() or "import tabnanny" in one["seen"]
    }


def test_torch_runs_what_a_hostile_archive_holds(attacked, small_model, load_in_child):
    """The reason for the check: without it they run, all but the one that torch refuses."""
    folders, proofs = attacked
    told = load_in_child([small_model, *folders], loader="torch.export.load")
    assert ran(told, proofs) == {attack.__name__ for attack in ATTACKS if attack != in_target}


def test_a_hostile_archive_is_refused_or_its_code_forgotten(attacked, small_model, load_in_child):
    folders, proofs = attacked
    told = load_in_child([small_model, *folders])
    assert ran(told, proofs) == set()
    assert [one["seen"] for one in told] == [[] for _ in ATTACKS]
    answers = {attack.__name__: one["answer"] for attack, one in zip(ATTACKS, told, strict=True)}
    for attack in (in_guards, in_tree, in_sample_inputs):
        assert answers.pop(attack.__name__) == "works"
    assert all(answer.startswith("refused: model ") for answer in answers.values()), answers
    assert "'expr_str'" not in answers["in_expression"]
    assert "torch.os.mkdir" in answers["in_target"]


@pytest.fixture
def check(tmp_path, zipped):
    """Checks an archive of members, or its bytes."""

    def check(members):
        archive = tmp_path / "archive.pt2"
        archive.write_bytes(zipped(members) if isinstance(members, dict) else members)
        write_checked(archive, tmp_path / "checked.pt2")

    return check


def test_what_torch_gets_holds_nothing_but_program_and_weights(
    check, small_members, tmp_path, small_model
):
    check(small_members)
    with zipfile.ZipFile(tmp_path / "checked.pt2") as checked:
        written = {name: checked.read(name) for name in checked.namelist()}
    assert {name for name in small_members if name not in written} == {
        "model/.data/serialization_id"
    }
    assert written[SAMPLE_INPUTS] == b""
    program = json.loads(written[PROGRAM])
    assert program["guards_code"] == []
    assert all(node["metadata"] == {} for node in nodes(program))
    same = [name for name in written if "/data/weights/weight_" in name]
    assert len(same) == 7
    assert all(written[name] == small_members[name] for name in same)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("model/data/aotinductor/model/model.so", b"ELF", "has a member"),
        ("model/data/weights/model.pt", b"", "has a member"),
        ("model/data/constants/custom_obj_0", b"", "has a member"),
        ("model/extra/x", b"", "has a member"),
        ("model/../../x", b"", "has a member"),
        ("/model/data/weights/weight_99", b"", "has a member"),
        ("model/data/weights/weight_99", b"", "data/weights/ are not those"),
        ("model/data/constants/tensor_99", b"", "data/constants/ are not those"),
        ("model/Archive_Format", b"pt2", "has a member"),
        ("other/data/weights/weight_0", b"", "more than one folder"),
        ("model/archive_version", b"1", r"archive_version is b'1', not b'0'"),
        ("model/byteorder", b"big", "byteorder is b'big'"),
        ("model/models/model.json", b"{", "is no JSON"),
        ("model/models/model.json", b"[" * 10_000_000, "is no JSON"),
        ("model/models/model.json", b"\xff", "is no JSON"),
        ("model/models/model.json", b"[]", "has 'None' at"),
        ("model/data/weights/weight_0", b"short", "not the size"),
    ],
)
def test_a_member_that_is_not_known_is_refused(check, small_members, name, data, reason):
    with pytest.raises(BadArchiveError, match=reason):
        check(small_members | {name: data})


@pytest.mark.parametrize("name", ["models/model.json", "archive_format", "data/weights/weight_0"])
def test_a_member_that_is_missing_is_told(check, small_members, name):
    members = dict(small_members)
    del members[f"model/{name}"]
    with pytest.raises(BadArchiveError, match=f"it has no {name}"):
        check(members)


def test_links_doubles_and_compressed_members_are_refused(check, small_members, zipped, tmp_path):
    def added(info, data, **options):
        archive = tmp_path / "added.pt2"
        archive.write_bytes(zipped(small_members))
        with zipfile.ZipFile(archive, "a") as file:
            file.writestr(info, data, **options)
        return archive.read_bytes()

    link = zipfile.ZipInfo("model/data/weights/weight_99")
    link.external_attr = 0o120777 << 16
    with pytest.raises(BadArchiveError, match="encrypted or a link"):
        check(added(link, b"/etc/passwd"))
    with pytest.warns(UserWarning, match="Duplicate"):
        doubled = added("model/data/weights/weight_1", b"")
    with pytest.raises(BadArchiveError, match="two members of one name"):
        check(doubled)
    name = "model/data/weights/weight_99"
    for size, reason in ((10_000_000, "zip bomb"), (1_000, "is compressed")):
        bomb = added(name, bytes(size), compress_type=zipfile.ZIP_DEFLATED)
        with pytest.raises(BadArchiveError, match=reason):
            check(bomb)


@pytest.mark.parametrize("data", [b"", b"PK", b"no archive", bytes(100_000)])
def test_what_is_no_zip_file_is_told(check, data):
    with pytest.raises(BadArchiveError, match="no sound zip file"):
        check(data)


@pytest.mark.parametrize(("major", "minor"), [(9, 1), (8, 21), (7, 0), (0, 0)])
def test_another_schema_is_refused_with_its_versions(check, small_members, major, minor):
    def change(program):
        program["schema_version"] = {"major": major, "minor": minor}
        program["torch_version"] = "9.9.0"
        program["new_field"] = 1

    with pytest.raises(BadArchiveError) as told:
        check(rewrite(small_members, PROGRAM, change))
    assert str(told.value) == (
        f"its schema is {major}.{minor} (torch '9.9.0'); read are 8.0 to 8.20, which torch up to "
        "2.15 writes"
    )


def test_the_installed_torch_writes_the_schema_that_is_read():
    from torch._export.serde.schema import SCHEMA_VERSION as installed

    from components.shared.model.exported_graph import SCHEMA_VERSION

    assert installed == SCHEMA_VERSION, (
        "read the new schema, widen exported_graph, raise its version"
    )


def test_a_program_moves_to_another_device_with_its_constants(tmp_path, small_model):
    import torch

    # `meta` stands for a GPU: an operation on tensors of two devices fails there too
    device = torch.device("meta")
    moved = load_program(small_model / "data" / "model.pt2", tmp_path, device)
    assert moved(torch.zeros(5, 7, 6, 3, dtype=torch.uint8, device="meta")).device.type == "meta"


def test_allowed_parts_that_make_no_program_are_told(tmp_path, small_members, small_model, zipped):
    def change(program):
        nodes(program)[-1]["inputs"] = []

    members = rewrite(small_members, PROGRAM, change)
    folder = model_of(members, tmp_path / "model", small_model, zipped)
    with pytest.raises(
        UserError, match=r"torch \S+ cannot read it: \w+: .*use a model that"
    ) as told:
        load_segmenter(folder)
    assert len(str(told.value).splitlines()) == 1

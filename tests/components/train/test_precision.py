import pytest

from components.train.precision import pick_precision
from components.train.recipe import Compute


@pytest.mark.parametrize(
    ("amx", "known", "picked"),
    [
        (True, {}, "bf16-mixed"),
        (False, {"cpu_name": "AMD EPYC", "avx512_bf16": True}, "bf16-mixed"),
        (False, {"cpu_name": "AMD EPYC", "avx512_bf16": False}, "32-true"),
        (False, {"cpu_name": "Intel(R) Xeon(R)", "avx512_bf16": True}, "32-true"),
        (False, {}, "32-true"),  # of another architecture
    ],
)
def test_a_cpu_computes_in_bfloat16_only_where_that_is_faster(monkeypatch, amx, known, picked):
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: known)
    assert pick_precision(Compute(device="cpu")) == picked
    assert pick_precision(Compute(device="cpu", precision="16-mixed")) == "16-mixed"


@pytest.mark.parametrize(("bf16", "picked"), [(True, "bf16-mixed"), (False, "16-mixed")])
def test_a_gpu_computes_in_the_half_precision_that_it_has(monkeypatch, bf16, picked):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda **_: bf16)
    assert pick_precision(Compute(device="cuda")) == picked

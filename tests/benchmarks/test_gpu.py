import json

import pytest
import torch

from tests.benchmarks import gpu


def test_without_a_gpu_the_benchmark_refuses(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["gpu"])
    with pytest.raises(SystemExit, match="torch sees no GPU; use --device cpu"):
        gpu.main()


@pytest.mark.slow
def test_every_measurement_runs_on_a_cpu(monkeypatch, tmp_path):
    output = tmp_path / "gpu.json"
    sizes = ["--source", "synthetic:8", "--steps", "2", "--presets", "demo"]
    monkeypatch.setattr("sys.argv", ["gpu", "--device", "cpu", "--output", str(output), *sizes])
    gpu.main()
    found = json.loads(output.read_text())
    assert not [row for row in found.values() if "error" in row or "skipped" in row]
    assert found["demo/training"]["slices_s"] > 0
    assert found["demo/prediction"]["volumes_s"] > 0
    assert 0 <= found["demo/precision"]["32-true"]["validation_dice"] <= 1
    shared = found["processes"]
    assert shared["largest_difference"] < 1e-3 * shared["largest_gradient"]


def test_late_measurements_are_skipped(monkeypatch, tmp_path):
    output = tmp_path / "gpu.json"
    own = ["--device", "cpu", "--minutes", "0", "--presets", "demo", "--output", str(output)]
    monkeypatch.setattr("sys.argv", ["gpu", *own])
    monkeypatch.setattr(gpu, "prepare", lambda *_: None)
    gpu.main()
    rows = json.loads(output.read_text())
    assert rows["demo/training"] == rows["processes"] == {"skipped": "late"}

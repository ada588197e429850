"""The study of accuracy runs as a command: resumed, on shapes and on real images, and asked what it does."""

import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dpcn_modules import build_model

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
ROWS = ["--rows", "CANet", "CANet + DCM"]
SHORT = ["--steps=4", "--test-episodes=20", "--runs=runs", "--out=out.json"]


def run(script, *arguments, folder):
    """Run a benchmark in a folder of its own; return what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, BENCHMARKS / script, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_study_prints_mean_and_spread_and_does_nothing_twice(tmp_path):
    printed = run("accuracy.py", "hosts", *ROWS, "--seeds", 0, 1, *SHORT, folder=tmp_path)
    for label in ("CANet", r"CANet \+ DCM"):
        assert re.search(rf"^{label} +\d+\.\d ± \d+\.\d .* \d+\.\d \d+\.\d ", printed, re.MULTILINE)
    assert "accuracy: shapes fold 0 test" in printed
    first = json.loads((tmp_path / "out.json").read_text())
    assert [(each["label"], each["seed"]) for each in first["runs"]] == [
        (label, seed) for label in ("CANet", "CANet + DCM") for seed in (0, 1)
    ]
    assert all(each["training_steps"] == 4 for each in first["runs"])
    assert all(each["training_loss"] > 0 for each in first["runs"])
    assert all(re.fullmatch("[0-9a-f]{12}", each["checkpoint"]) for each in first["runs"])
    assert re.search(r"; episodes [0-9a-f]{12}$", first["protocols"][0])
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/score.json")}
    assert len(files) == 4
    run("accuracy.py", "hosts", *ROWS, "--seeds", 0, 1, *SHORT, folder=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/score.json")} == files
    assert json.loads((tmp_path / "out.json").read_text())["runs"] == first["runs"]

    # A run that was cut off begins anew, and what it left is gone.
    cut = next(iter(files))
    before = json.loads(cut.read_text())
    cut.unlink()
    leftover = cut.parent / "checkpoints" / "epoch=0-step=1.ckpt"
    leftover.touch()
    again = ["--rows", before["label"], "--seeds", before["seed"]]
    run("accuracy.py", "hosts", *again, *SHORT, folder=tmp_path)
    after = json.loads(cut.read_text())
    assert (after["miou"], after["class_iou"]) == (before["miou"], before["class_iou"])
    assert not leftover.exists()

    printed = run("adapter_probe.py", "--runs=runs", "--episodes=20", "--out=probe.json", folder=tmp_path)
    probes = json.loads((tmp_path / "probe.json").read_text())["probes"]
    assert sorted(probe["seed"] for probe in probes) == [0, 1]
    assert all({"own", "foreign", "mean", "without", "added"} <= probe.keys() for probe in probes)
    assert "of another class" in printed


def test_several_folds_give_a_column_each_and_their_mean(tmp_path):
    printed = run("accuracy.py", "hosts", "--rows=PANet", "--folds", 1, 3, "--seeds", 0, 1, *SHORT, folder=tmp_path)
    lines = printed.splitlines()
    header = next(line for line in lines if "mIoU by seed" in line)
    line = next(line for line in lines if line.startswith("PANet  "))
    assert re.findall(r"fold \d|mIoU by seed", header) == ["fold 1", "fold 3", "mIoU by seed"]
    result = json.loads((tmp_path / "out.json").read_text())
    by_seed = [
        statistics.mean(100 * each["miou"] for each in result["runs"] if each["seed"] == seed) for seed in (0, 1)
    ]
    assert f"{by_seed[0]:.1f} {by_seed[1]:.1f} " in line
    assert f" {statistics.mean(by_seed):.1f} ± {statistics.stdev(by_seed):.1f} " in line
    assert [protocol[:23] for protocol in result["protocols"]] == ["accuracy: shapes fold 1", "accuracy: shapes fold 3"]


@pytest.mark.parametrize(("name", "part"), [("canet_small_dcm", "attention"), ("pfenet_small_dcm", "merge")])
def test_the_adapter_can_be_put_elsewhere(name, part, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import accuracy

    torch.manual_seed(0)
    host = build_model(name).eval()
    torch.nn.init.normal_(host.interaction.merge.weight, std=0.1)
    episode = torch.randn(2, 3, 32, 32), torch.randn(2, 1, 3, 32, 32), torch.ones(2, 1, 32, 32)
    with torch.no_grad():
        published_place = host(*episode).logits
        accuracy.move_adapter(host, part)
        moved = host(*episode).logits
        assert not torch.allclose(moved, published_place)
        torch.nn.init.zeros_(host.interaction.merge.weight)
        torch.nn.init.zeros_(host.interaction.merge.bias)
        untrained = host(*episode).logits
        bare = build_model(name, dcm=False).eval()
        bare.load_state_dict(host.state_dict(), strict=False)
        assert torch.equal(untrained, bare(*episode).logits)


@pytest.mark.real_data
def test_the_study_takes_real_images(tmp_path, real_data):
    voc = real_data / "voc_small"
    printed = run(
        "accuracy.py", "ablations", f"--voc={voc}", "--rows", "SAM + FFM", "--seeds=0", *SHORT, folder=tmp_path
    )
    assert "pascal5i without horse, sheep, cow, test, val.txt" in printed
    assert str(voc) not in (tmp_path / "out.json").read_text()


def test_an_unknown_row_is_named(tmp_path):
    command = [sys.executable, BENCHMARKS / "accuracy.py", "hosts", "--rows", "DPCN2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--rows: expected some of PANet, CANet" in done.stderr

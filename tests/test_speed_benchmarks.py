"""The speed benchmarks run as commands, name everybody, and leave what benchmarks/README.md promises."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dpcn_modules.functional._backends import BACKENDS

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
KEYS = {"benchmark", "command", "settings", "rows", "skipped", "hardware", "versions", "date"}
ROW = {"contender", "median", "lower", "upper", "seconds", "peak_bytes"}
NO_CUDA = "this PyTorch finds no CUDA device"


def run(script, *arguments, folder, status=0, **environment):
    """Run a benchmark in a folder; return what it printed."""
    command = [sys.executable, BENCHMARKS / script, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == status, done.stderr[-3000:]
    return done.stdout + done.stderr


def result_of(path):
    """Read a result, and check what all of them hold."""
    result = json.loads(path.read_text())
    assert result.keys() >= KEYS
    assert all(row.keys() >= ROW for row in result["rows"])
    assert all(len(row["seconds"]) == result["settings"]["repeats"] for row in result["rows"])
    assert all(row["lower"] <= row["median"] <= row["upper"] for row in result["rows"])
    assert result["command"].startswith(f"python benchmarks/{result['benchmark']}.py")
    assert {"python", "torch", "commit"} <= result["versions"].keys()
    assert result["hardware"]["threads"] == 1
    if not torch.cuda.is_available():
        assert {"contender": "cuda", "reason": NO_CUDA} in result["skipped"]
    return result


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A folder with small results of dynamic_conv.py and region_matching.py, and what they printed."""
    folder = tmp_path_factory.mktemp("speed")
    printed = run(
        "dynamic_conv.py",
        *("--batch", 1, 2, "--channels", 4, 8, "--sizes", 6, 9, "--kernels", "dpcn", 3, 5, "--repeats", 2),
        *("--no-compile", "--out=dynamic_conv_cpu.json"),
        folder=folder,
    )
    printed += run(
        "region_matching.py",
        *("--sizes", 6, 8, "--shots", 1, 2, "--channels", 8, "--chunks", 12, "--repeats=2"),
        "--out=region_matching_cpu.json",
        folder=folder,
    )
    return folder, printed


def test_dynamic_conv_names_every_backend_and_idiom(measured):
    folder, printed = measured
    result = result_of(folder / "dynamic_conv_cpu.json")
    idioms = ["loop of conv2d", "grouped conv2d", "unfold + einsum", "compiled grouped"]
    skipped = {each["contender"] for each in result["skipped"]}
    for work in ("forward", "forward+backward"):
        timed = {row["contender"] for row in result["rows"] if row["work"] == work}
        assert timed | skipped >= {*idioms, *(f"backend {name}" for name in BACKENDS)}
        assert timed >= {"copy", "backend grouped_cpu", *idioms[:3]}
    assert "backend reference: the definition" in printed
    assert all(row["times_floor"] > 0 for row in result["rows"])
    # Four sides and batches with the first channels and kernels; one more of the channels, two of the kernels.
    assert len({tuple(row[name] for name in ("batch", "size", "channels", "kernels")) for row in result["rows"]}) == 7


def test_dynamic_conv_moves_what_it_must_by_hand(measured):
    result = result_of(measured[0] / "dynamic_conv_cpu.json")
    chosen = [
        row["bytes_to_move"]
        for row in result["rows"]
        if (row["kernels"], row["batch"], row["size"], row["channels"]) == ("5", 1, 6, 4) and row["contender"] == "copy"
    ]
    x, kernels = 4 * 6 * 6 * 4, 4 * 5 * 5 * 4
    forward = x + kernels + x  # read both, write the result
    assert chosen == [forward, forward + (x + x + kernels) + (x + kernels)]  # read three, write two gradients


def test_region_matching_compares_four_forms_in_time_and_memory(measured):
    folder, printed = measured
    result = result_of(folder / "region_matching_cpu.json")
    names = {"literal", "loop", "unfolded", "ours", "ours, chunk 12"}
    settings = {(row["work"], row["size"], row["shots"]) for row in result["rows"]}
    assert len(settings) == 8
    for setting in settings:
        rows = [row for row in result["rows"] if (row["work"], row["size"], row["shots"]) == setting]
        assert {row["contender"] for row in rows} == names
        assert all(row["largest_difference"] < 1e-4 for row in rows)
    assert "forward: literal " in printed
    assert "forward+backward: literal " in printed


def test_plots_are_drawn_of_what_is_there(measured):
    folder = measured[0]
    printed = run("plots.py", "--results=.", "--out=images", folder=folder)
    for name in ("dynamic_conv_cpu.png", "region_matching_cpu.png"):
        assert (folder / "images" / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "skipped: dynamic_conv on cuda: no dynamic_conv_cuda.json" in printed


def test_a_missing_compiler_is_a_reason_to_skip(tmp_path):
    small = ("--batch=1", "--channels=4", "--sizes=6", "--kernels=3", "--repeats=1", "--out=out.json")
    environment = {"CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    printed = run("dynamic_conv.py", *small, folder=tmp_path, **environment)
    assert "skipped: compiled grouped: failed: " in printed
    assert any(each["contender"] == "compiled grouped" for each in result_of(tmp_path / "out.json")["skipped"])


def test_episodes_are_split_by_stage_and_count_their_images(tmp_path):
    models = ("dpcn_small", "canet_small")
    small = ("--size=33", "--shots", 1, 2, "--batches", 2, "--repeats=1", "--bf16", "off", "on", "--out=out.json")
    printed = run("episode.py", "--models", *models, *small, folder=tmp_path)
    rows = result_of(tmp_path / "out.json")["rows"]
    found = {(row["contender"], row["shots"]): row for row in rows}
    for name in models:
        for shots in (1, 2):
            assert found[name, shots]["images_per_episode"] == 1 + shots
            assert found[f"{name}, support kept", shots]["images_per_episode"] == 1
            assert found[f"{name}, support kept", shots]["flops_per_episode"] < found[name, shots]["flops_per_episode"]
            assert (f"{name}, bf16", shots) in found
            stages = found[name, shots]["stages"]
            assert (stages["SAM"] is None) == (name != "dpcn_small")
            assert (stages["DCM"] is None) == (name != "dpcn_small")
            assert sum(filter(None, stages.values())) == pytest.approx(found[name, shots]["median"])
    assert "dpcn_small: head / backbone of one pair of images: " in printed


def test_evaluation_with_the_cache_gives_the_same_score(tmp_path):
    small = ("--model=dpcn_small", "--size=33", "--episodes=6", "--batch=2", "--repeats=1", "--out=out.json")
    printed = run("evaluation.py", *small, folder=tmp_path)
    rows = result_of(tmp_path / "out.json")["rows"]
    assert [row["contender"] for row in rows] == ["no cache", "cache 4GB"]
    assert rows[0]["miou"] == pytest.approx(rows[1]["miou"], abs=1e-3)
    assert rows[0]["cache"] is None
    assert "cache 4GB: feature cache: " in printed


def test_a_step_from_the_store_has_the_loss_of_one_through_the_backbone(tmp_path):
    small = ("--model=dpcn_small", "--size=33", "--channels=16", "--batch=2", "--repeats=1", "--out=out.json")
    run("feature_store.py", *small, folder=tmp_path)
    rows = result_of(tmp_path / "out.json")["rows"]
    assert [row["contender"] for row in rows] == [
        f"{name}: {what}" for what in ("step", "batch and step") for name in ("backbone", "store")
    ]
    assert all(row["times_faster"] > 0 for row in rows)
    assert rows[0]["times_faster"] == rows[2]["times_faster"] == 1


@pytest.mark.real_data
def test_the_loader_stands_beside_the_step_on_real_images(tmp_path, real_data):
    small = ("--model=dpcn_small", "--size=65", "--batch=2", "--count=1", "--workers", 0, 1, "--repeats=1")
    voc = real_data / "voc2012_subset"
    classes = ("--classes", "cat", "dog", "person")
    printed = run("loader.py", *small, f"--voc={voc}", *classes, "--out=out.json", folder=tmp_path)
    names = [f"{kind}, {count} workers" for kind in ("shapes", "real images") for count in (0, 1)]
    rows = result_of(tmp_path / "out.json")["rows"]
    steps = [f"step of dpcn_small, {what}" for what in ("all of it", "layer4 and the head")]
    assert [row["contender"] for row in rows] == [
        *names,
        *(s + tail for s in steps for tail in ("", ", channels_last")),
    ]
    assert str(voc) not in (tmp_path / "out.json").read_text()
    assert "keeps up" in printed or "too slow" in printed


@pytest.mark.parametrize(
    ("script", "argument", "rule"),
    [
        ("dynamic_conv", "--kernels=4", "--kernels: expected dpcn or an odd number, got 4"),
        ("region_matching", "--repeats=0", "--repeats: expected a whole number of at least 1, got 0"),
        ("plots", "--results=nowhere", "--results: expected a folder with results, got nowhere"),
    ],
)
def test_wrong_arguments_name_the_rule(script, argument, rule, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(sys, "argv", [f"{script}.py", argument])
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(script).main()
    assert stopped.value.code == 2
    assert rule in capsys.readouterr().err


def test_plain_forms_can_be_left_out_where_there_is_much_to_match(tmp_path):
    small = ("--sizes", 6, 8, "--channels", 8, "--shots", 1, 2, "--chunks", 12, "--repeats=1", "--out=out.json")
    printed = run("region_matching.py", *small, "--plain-up-to=8", folder=tmp_path)
    assert "skipped: literal: --plain-up-to 8" in printed
    rows = result_of(tmp_path / "out.json")["rows"]
    assert {(row["size"], row["shots"]) for row in rows if row["contender"] == "literal"} == {(6, 1), (8, 1)}
    assert {(row["size"], row["shots"]) for row in rows if row["contender"] == "ours"} == {
        (6, 1),
        (8, 1),
        (6, 2),
        (8, 2),
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_is_named_as_skipped_where_there_is_none(tmp_path):
    printed = run("region_matching.py", "--device=cuda", "--out=out.json", folder=tmp_path)
    assert f"skipped: cuda: {NO_CUDA}" in printed
    assert not (tmp_path / "out.json").exists()


@pytest.fixture
def harness(monkeypatch, tmp_path):
    """The module that all benchmarks share, and a run of it with three repeats."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(sys, "argv", ["a_benchmark.py", "--repeats=3", f"--out={tmp_path / 'out.json'}"])
    import _harness

    return _harness, lambda: _harness.Bench("a_benchmark.py", _harness.argparse.ArgumentParser())


def test_contenders_take_turns_after_an_uncounted_run(harness):
    module, make = harness
    calls = []
    contenders = {name: module.Contender(lambda name=name: calls.append(name), memory=False) for name in "ab"}
    rows = make().compete(contenders, {"setting": 1})
    assert "".join(calls) == "ab" + "ab" * 3
    assert [(row["setting"], row["contender"], len(row["seconds"])) for row in rows] == [(1, "a", 3), (1, "b", 3)]


def test_a_contender_with_wrong_values_is_refused_and_ends_the_run_if_it_is_ours(harness, tmp_path):
    module, make = harness
    for ours in (False, True):
        bench = make()
        contenders = {"right": module.Contender(lambda: 1), "other": module.Contender(lambda: 2, ours=ours)}
        rows = bench.compete(contenders, {}, wrong=lambda name, value: None if value == 1 else f"it is {value}")
        assert [row["contender"] for row in rows] == ["right"]
        assert {"contender": "other", "reason": "refused: it is 2"} in bench.skipped
        if ours:
            with pytest.raises(SystemExit, match="Values of the library were wrong"):
                bench.write()
        else:
            bench.write()
        assert (tmp_path / "out.json").exists()


def test_the_peak_holds_what_was_handed_back_already(harness):
    module, make = harness
    size = 64 * 2**20
    peak = make().peak_memory(module.Contender(lambda: torch.ones(size // 4).sum()))
    if peak is None:
        pytest.skip("this system does not count the peak anew")
    assert 0.9 * size < peak < 1.5 * size


def test_a_contender_that_needs_more_than_is_free_is_skipped_with_the_estimate(harness):
    bench = harness[1]()
    assert bench.fits("small", 1, {})
    assert not bench.fits("large", 2**60, {})
    assert "large" in bench.skipped[-1]["contender"]
    assert bench.skipped[-1]["reason"].startswith("needs about 1073741824.0 GiB")

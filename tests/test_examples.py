"""Every example runs as it is, and so do the README's first Python block and the commands on real images."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dpcn_modules.models import build_model

ROOT = Path(__file__).resolve().parents[1]


def run(*command, folder):
    """Run Python in a folder of its own, one thread; return what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_modules_prints_every_shape(tmp_path):
    printed = run(ROOT / "examples" / "modules.py", folder=tmp_path)
    assert "(2, 192, 30, 30)" in printed
    assert "identity: True" in printed


def test_train_dpcn_prints_the_score_and_its_protocol(tmp_path):
    printed = run(ROOT / "examples" / "train_dpcn.py", "--steps=4", "--test-episodes=10", folder=tmp_path)
    assert re.search(r"mIoU \d+\.\d, FB-IoU \d+\.\d; example: shapes fold 0 test", printed)


@pytest.mark.real_data
def test_train_dpcn_takes_a_voc_folder(tmp_path, real_data):
    classes = ["cat", "cow", "chair", "dog", "horse", "person", "sheep", "sofa"]
    arguments = [f"--voc={real_data / 'voc2012_subset'}", "--fold=2", "--steps=2", "--test-episodes=4", "--size=65"]
    printed = run(ROOT / "examples" / "train_dpcn.py", *arguments, "--classes", *classes, folder=tmp_path)
    assert "example: pascal5i fold 2 test" in printed


def saved(folder, host):
    """The checkpoint that the example with this host network wrote."""
    (path,) = (folder / "runs" / f"train_{host}_dcm").rglob("*.ckpt")
    return torch.load(path, weights_only=True)


def run_adapter(host, *arguments, folder):
    """Run the example that adapters DCM into a host network, for a few steps."""
    return run(ROOT / "examples" / f"train_{host}_dcm.py", "--test-episodes=10", *arguments, folder=folder)


@pytest.mark.parametrize("host", ["canet", "pfenet"])
def test_a_host_with_dcm_from_scratch_prints_the_score_and_its_protocol(tmp_path, host):
    printed = run_adapter(host, "--steps=4", folder=tmp_path)
    assert re.search(r"^mIoU \d+\.\d, FB-IoU \d+\.\d; example: shapes fold 0 test", printed, re.MULTILINE)
    assert "without DCM" not in printed
    assert saved(tmp_path, host)["settings"]["dcm"] is True


def test_an_adapter_for_a_published_canet_prints_both_scores_and_leaves_the_host_as_it_was(tmp_path):
    host = build_model("canet_small")
    published = {theirs: host.state_dict()[ours] for ours, theirs in host.published_names().items()}
    torch.save({"state_dict": published}, tmp_path / "canet.pth")
    printed = run_adapter("canet", "--published=canet.pth", "--train=adapter", "--steps=4", folder=tmp_path)
    assert re.search(r"^without DCM: mIoU \d+\.\d, FB-IoU \d+\.\d$", printed, re.MULTILINE)
    assert re.search(r"^gear +\d+\.\d +without DCM +\d+\.\d$", printed, re.MULTILINE)
    after = saved(tmp_path, "canet")["state_dict"]
    assert all(torch.equal(after[f"model.{ours}"], host.state_dict()[ours]) for ours in host.published_names())
    assert after["model.interaction.merge.weight"].any()


def test_an_adapter_for_a_pfenet_of_one_s_own_takes_its_size_and_trains_its_head(tmp_path):
    host = build_model("pfenet_small", channels=16)
    state = {f"model.{name}": value for name, value in host.state_dict().items()}
    torch.save(
        {"network": host.name, "settings": dataclasses.asdict(host.settings), "state_dict": state, "size": 32},
        tmp_path / "host.ckpt",
    )
    printed = run_adapter("pfenet", "--host-checkpoint=host.ckpt", "--steps=2", folder=tmp_path)
    assert "without DCM: mIoU" in printed
    assert "seen at 32 px" in printed
    after = saved(tmp_path, "pfenet")
    assert after["settings"]["channels"] == 16
    assert not torch.equal(after["state_dict"]["model.merge.0.weight"], state["model.merge.0.weight"])


def test_segment_my_images_writes_mask_and_overlay(tmp_path):
    printed = run(ROOT / "examples" / "segment_my_images.py", folder=tmp_path)
    assert "untrained" in printed
    assert {path.name for path in (tmp_path / "runs" / "segment").iterdir()} == {"mask.png", "overlay.png"}


def test_the_demo_writes_what_it_says(tmp_path):
    printed = run(ROOT / "examples" / "demo.py", "--steps=8", "--test-episodes=20", folder=tmp_path)
    assert "held-out classes: ring, letter_E, gear, key, crescent" in printed
    demo = tmp_path / "runs" / "demo"
    result = json.loads((demo / "result.json").read_text())
    assert [row["row"] for row in result["rows"]] == [
        result["rows"][0]["row"],
        "true mask of every object",
        "DPCN, 8 steps",
        "baseline, 8 steps",
    ]
    assert result["rows"][0]["row"].startswith("untrained prior mask")
    assert all(0 <= row["miou"] <= 1 for row in result["rows"])
    assert {"episodes.png", "curves.png", "DPCN", "baseline"} <= {path.name for path in demo.iterdir()}
    printed = run(
        ROOT / "examples" / "segment_my_images.py", f"--checkpoint={demo / 'DPCN' / 'last.ckpt'}", folder=tmp_path
    )
    assert "% of the image is the object" in printed


def test_the_first_python_block_of_the_readme_runs(tmp_path):
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL).group(1)
    run("-c", block, folder=tmp_path)


@pytest.mark.real_data
def test_recipe_on_real_images_fit_test_segment(tmp_path, real_data):
    voc = real_data / "voc2012_subset"
    config = [
        f"--config={ROOT / 'examples' / 'configs' / 'pascal5i_short.yaml'}",
        f"--data.source.init_args.root={voc}",
    ]
    short = [
        "--data.episodes_per_epoch=8",
        "--data.val_episodes=2",
        "--data.test_episodes=12",
        "--trainer.max_epochs=1",
    ]
    dpcn = ("-m", "dpcn_modules.cli.main")
    run(*dpcn, "fit", *config, *short, folder=tmp_path)
    last = tmp_path / "runs" / "dpcn" / "version_0" / "checkpoints" / "last.ckpt"
    printed = run(*dpcn, "test", *config, *short, f"--ckpt_path={last}", folder=tmp_path)
    assert all(
        word in printed for word in ("dog", "horse", "person", "mIoU", "protocol: short: pascal5i fold 2 test, val.txt")
    )
    names = ["2007_001763", "2007_002268"]
    supports = [voc / "JPEGImages" / f"{name}.jpg" for name in names]
    masks = [voc / "SegmentationClassAug" / f"{name}.png" for name in names]
    query = voc / "JPEGImages" / "2009_002346.jpg"
    arguments = ["--support", *supports, "--mask", *masks, "--class-id=12", f"--query={query}", "--output=out"]
    run(*dpcn, "segment", f"--checkpoint={last}", *arguments, folder=tmp_path)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"2009_002346.png", "2009_002346_overlay.jpg"}

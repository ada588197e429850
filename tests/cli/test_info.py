"""`dpcn info`: versions, devices, extras and backends as they are, and why something is not."""

import argparse
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dpcn_modules import __version__
from dpcn_modules.cli import info
from dpcn_modules.functional._backends import BACKENDS


def row(name: str) -> str:
    """What the report says of something."""
    (line,) = [line for line in info.report().splitlines() if line.startswith(f"  {name} ")]
    return line.removeprefix(f"  {name}").strip()


def test_info_prints_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    info.add_arguments(parser)
    info.run(parser.parse_args([]))
    assert capsys.readouterr().out == info.report() + "\n"


def test_info_names_versions_and_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert row("dpcn_modules") == __version__
    assert row("torch") == torch.__version__.partition("+")[0] or row("torch") == torch.__version__
    monkeypatch.setattr(info, "_PACKAGES", ("a-package-that-nobody-has",))
    assert row("a-package-that-nobody-has") == "not installed"


def test_info_counts_cpu_threads() -> None:
    assert row("cpu").startswith(f"{torch.get_num_threads()} threads on ")


@pytest.mark.parametrize(
    ("built_for", "text"),
    [(None, "none: this PyTorch is built without CUDA"), ("13.0", "none: .* CUDA 13.0, but finds no")],
)
def test_info_says_why_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch, built_for: str | None, text: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built_for)
    assert re.match(text, row("cuda"))


def test_info_names_gpus_with_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SimpleNamespace(name="Some GPU", total_memory=80 * 2**30, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: gpu)
    monkeypatch.setattr(info, "_backends", lambda: {"none": ""})
    assert row("cuda") == "; ".join(["Some GPU, 80 GiB, capability 9.0"] * 2)


def test_extras_are_those_of_the_project() -> None:
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    declared = tomllib.loads(project.read_text())["project"]["optional-dependencies"]
    names = {
        extra: tuple(re.split(r"[\[>=<]", requirement)[0] for requirement in requirements)
        for extra, requirements in declared.items()
        if extra != "dev"
    }
    assert names == info._EXTRAS


def test_info_gives_the_pip_command_of_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    version = info._version
    monkeypatch.setattr(info, "_version", lambda name: "not installed" if name == "matplotlib" else version(name))
    assert row("[viz]") == "without matplotlib: pip install 'dpcn_modules[viz]'"
    assert row("[train]") == "installed"


def test_backends_are_listed_in_the_order_of_auto() -> None:
    lines = info.report().partition("backends")[2].splitlines()[1:]
    assert [line.split()[0] for line in lines[::2]] == ["auto", *BACKENDS]
    assert [line.split()[2] for line in lines] == ["cpu", "cuda"] * (1 + len(BACKENDS))


def test_info_says_which_backends_can_run_and_why_others_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    fussy = SimpleNamespace(why_not=lambda x, kernels: f"needs a GPU, got {x.device} and {len(kernels)} kernels")
    monkeypatch.setitem(BACKENDS, "fussy", fussy)
    assert row("auto on cpu") == "picks grouped_cpu"
    assert row("auto on cuda") == "cannot run: there is no CUDA device"
    assert row("grouped on cpu") == "can run"
    assert row("fussy on cpu") == "cannot run: needs a GPU, got cpu and 1 kernels"
    assert row("fussy on cuda") == "cannot run: there is no CUDA device"


def test_info_says_that_auto_leaves_triton_out_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    note = "auto leaves it out, since it is not yet measured on a GPU; name it: backend='triton'"
    monkeypatch.setattr(BACKENDS["triton"], "why_not", lambda x, kernels: None)
    assert row("triton on cpu") == f"can run; {note}"
    monkeypatch.setattr(BACKENDS["triton"], "why_not", lambda x, kernels: "needs something")
    assert row("triton on cpu") == f"cannot run: needs something; {note}"
    assert "auto leaves" not in row("grouped on cpu")

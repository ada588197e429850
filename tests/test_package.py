"""The public surface, who may import whom, and what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dpcn_modules

SOURCE = Path(dpcn_modules.__file__).parent
PUBLIC = {
    "": "CANet DCM DPCN FFM PANet PFENet SAM DCMInteraction DynamicConvolutionModule FeatureFilteringModule "
    "FewShotSegmenter Prediction SupportActivationModule add_dcm build_model load_model remove_dcm",
    "functional": "dynamic_conv2d dynamic_conv2d_multi foreground_pool masked_average_pool prior_mask "
    "region_activation resize_mask",
    "modules": "ASPP DCM DCMInteraction Decoder DynamicConvolutionModule FFM FeatureFilteringModule SAM "
    "SupportActivationModule",
    "models": "BACKBONES Backbone CANet CANetSettings Checkpoint DPCN DPCNSettings FewShotNetwork Host MODELS PANet "
    "PANetSettings PFENet PFENetSettings build_backbone build_model load_model read_checkpoint",
    "adapters": "add_dcm remove_dcm train_adapter_only",
    "training": "EpisodeDataModule EpisodeIoU FewShotTask Score episode_loss mask_loss",
    "evaluation": "FUSIONS FeatureCache Fusion NamedProtocol PROTOCOLS Protocol best_prior_threshold fuse_scales "
    "fuse_shots logits_at_original_size one_shot_logits predicted_mask",
}
ROOMS = {
    "_checks": set(),
    "interface": set(),
    "functional": {"_checks"},
    "modules": {"_checks", "functional"},
    "models": {"_checks", "functional", "interface", "modules"},
    "adapters": {"_checks", "models", "modules"},
    "data": {"_checks"},
    "evaluation": {"_checks", "data", "functional", "interface"},
    "training": {"_checks", "data", "evaluation", "functional", "interface"},
    "viz": {"_checks", "data"},
    "segmenter": {"_checks", "data", "evaluation", "interface", "models"},
}


@pytest.mark.parametrize("room", PUBLIC)
def test_the_public_names_are_these(room):
    module = __import__(f"dpcn_modules.{room}".rstrip("."), fromlist=["x"])
    assert sorted(module.__all__) == sorted(PUBLIC[room].split())
    assert all(getattr(module, name) is not None for name in module.__all__)


def imports_of(path):
    """Rooms that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module == "dpcn_modules":
            names = [f"dpcn_modules.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        yield from (name.split(".")[1] for name in names if name.startswith("dpcn_modules."))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_below_it(room):
    files = [SOURCE / f"{room}.py"] if (SOURCE / f"{room}.py").is_file() else list((SOURCE / room).rglob("*.py"))
    assert files
    found = {name for path in files for name in imports_of(path)} - {room}
    assert found <= ROOMS[room]


def test_only_the_command_line_knows_itself():
    assert not [path for path in SOURCE.rglob("*.py") if "cli" in imports_of(path) and path.parent.name != "cli"]


def test_import_is_silent_and_needs_the_core_only():
    code = (
        "import sys, torch; before = set(sys.modules); import dpcn_modules; "
        "new = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "extras = {'torchvision', 'lightning', 'torchmetrics', 'matplotlib', 'PIL', 'jsonargparse'}; "
        "sys.exit(str(new & extras) if new & extras else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::Warning:dpcn_modules", "-c", code], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_missing_extra_names_the_pip_command():
    code = (
        "import sys; sys.modules['torchmetrics'] = None\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'torchmetrics' else find(name, *a)\n"
        "import dpcn_modules.training"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ModuleNotFoundError: needs torchmetrics: pip install 'dpcn_modules[train]'" in done.stderr

"""The public surface, who may import whom, and what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dpcn_modules
from dpcn_modules import errors

SOURCE = Path(dpcn_modules.__file__).parent
PUBLIC = {
    "": "CANet DCM DPCN FFM PANet PFENet SAM DCMInteraction DynamicConvolutionModule FeatureFilteringModule "
    "FewShotSegmenter Prediction SupportActivationModule add_dcm build_model list_backbones list_models load_model "
    "remove_dcm",
    "functional": "describe_backends dynamic_conv2d dynamic_conv2d_multi episode_loss foreground_pool mask_loss "
    "masked_average_pool prior_mask region_activation resize_mask",
    "modules": "ASPP DCM DCMInteraction Decoder DynamicConvolutionModule FFM FeatureFilteringModule KernelApplication "
    "KernelGenerator SAM SupportActivationModule",
    "models": "BACKBONES Backbone CANet CANetSettings Checkpoint DPCN DPCNSettings FUSIONS FewShotNetwork Fusion "
    "HostNetwork MODELS PANet PANetSettings PFENet PFENetSettings Settings add_dcm build_backbone build_model "
    "fuse_shots list_backbones list_models load_model read_checkpoint remove_dcm settings_of train_adapter_only",
    "training": "EpisodeDataModule FewShotTask",
    "errors": "DPCNError DownloadError InputError InputFileError InputTypeError MissingPackageError NonFiniteLossError "
    "WriteError",
    "evaluation": "EpisodeIoU FeatureCache NamedProtocol PROTOCOLS Predictor Protocol Score best_prior_threshold "
    "evaluate fuse_scales logits_at_original_size predicted_mask score_batch",
}
PACKAGES = {  # beside errors, which all of them raise
    "errors": set(),
    "_checks": set(),
    "interface": set(),
    "functional": {"_checks", "interface"},
    "modules": {"_checks", "functional"},
    "models": {"_checks", "functional", "interface", "modules"},
    "data": {"_checks", "interface"},
    "evaluation": {"_checks", "data", "functional", "interface", "models", "__version__"},
    "training": {"_checks", "data", "evaluation", "functional", "interface", "models", "__version__"},
    "viz": {"_checks", "data"},
    "segmenter": {"_checks", "data", "evaluation", "interface", "models"},
}


@pytest.mark.parametrize("package", PUBLIC)
def test_the_public_names_are_these(package):
    module = __import__(f"dpcn_modules.{package}".rstrip("."), fromlist=["x"])
    assert sorted(module.__all__) == sorted(PUBLIC[package].split())
    assert all(getattr(module, name) is not None for name in module.__all__)


def test_dir_lists_what_is_imported_on_first_use():
    code = "import dpcn_modules as d; print(sorted(set(d.__all__) - set(dir(d))), 'FewShotSegmenter' in vars(d))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[] False"


def imports_of(path):
    """Packages and modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module == "dpcn_modules":
            names = [f"dpcn_modules.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        yield from (name.split(".")[1] for name in names if name.startswith("dpcn_modules."))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_packages_below_it(package):
    single = SOURCE / f"{package}.py"
    files = [single] if single.is_file() else list((SOURCE / package).rglob("*.py"))
    assert files
    found = {name for path in files for name in imports_of(path)} - {package, "errors"}
    assert found <= PACKAGES[package]


def test_no_package_imports_a_private_file_of_another():
    strangers = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                package, *inner = module.removeprefix("dpcn_modules.").split(".")
                private = module.startswith("dpcn_modules.") and any(part.startswith("_") for part in inner)
                if private and path.relative_to(SOURCE).parts[0] != package:
                    strangers.append(f"{path.name}: {module}")
    assert strangers == []


def test_bad_input_raises_the_errors_of_the_library():
    """`dpcn` takes any other error for a fault."""
    names = ("ValueError", "TypeError", "FileNotFoundError")
    found = [
        f"{path.name}:{node.lineno}"
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and getattr(node.exc.func, "id", "") in names
    ]
    assert found == []


def test_the_errors_are_also_those_of_python():
    for name, kind in (
        ("InputError", ValueError),
        ("InputTypeError", TypeError),
        ("InputFileError", FileNotFoundError),
    ):
        assert issubclass(getattr(errors, name), errors.DPCNError)
        assert issubclass(getattr(errors, name), kind)


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
    assert "MissingPackageError: needs torchmetrics: pip install 'dpcn_modules[train]'" in done.stderr

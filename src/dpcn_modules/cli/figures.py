"""`dpcn figures`: the paper's figures from logs, results and checkpoints, as PNG and PDF."""

import argparse
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch.cli import LightningArgumentParser
from torch import Tensor

from dpcn_modules.cli.episodes import DataCLI
from dpcn_modules.cli.fit import ConfigTask
from dpcn_modules.cli.protocols import expand
from dpcn_modules.data import Episode, EpisodeDataset, View, manifest_hash, manifest_lines, target_mask
from dpcn_modules.data.boxes import annotate
from dpcn_modules.evaluation import (
    Fusion,
    fuse_scales,
    fuse_shots,
    logits_at_original_size,
    one_shot_logits,
    predicted_mask,
)
from dpcn_modules.evaluation.results import file_hash, software
from dpcn_modules.models import FewShotNetwork, load_model
from dpcn_modules.models.factory import settings_of
from dpcn_modules.training import EpisodeDataModule
from dpcn_modules.viz import EpisodeRow, episode_strip, fold_curves, sweep_curve
from dpcn_modules.viz.runs import describe_data, read_config, read_result, setting, sweep_lines

_EPISODES = {
    "strips": "supports, query, the predictions of checkpoints side by side, ground truth (figures 5, A3 to A6)",
    "activations": "the activation maps and pseudo masks of a checkpoint (figure A7)",
}
_CLASSES_SHOWN = 3
_OUTPUT = "NAME.png, NAME.pdf, or a name without suffix for both; a caption goes to NAME.txt"


def run(arguments: list[str]) -> None:
    """Draw a figure.

    Args:
        arguments: those after ``dpcn figures``: curves, sweep, strips or activations, and its own.

    Raises:
        FileNotFoundError: a log, result or checkpoint is not there.
        ValueError: one of them is something else, or an argument is out of its range.
    """
    if arguments and arguments[0] in _EPISODES:
        _draw_episodes(arguments[0], arguments[1:])
        return
    parser = argparse.ArgumentParser(prog="dpcn figures", description="The paper's figures, as PNG and PDF.")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="{curves,sweep,strips,activations}")
    curves = kinds.add_parser("curves", help="loss and validation mIoU, one panel a fold (figure A1)")
    curves.add_argument(
        "--runs", type=Path, nargs="+", required=True, metavar="DIR", help="holds metrics.csv and config.yaml"
    )
    sweep = kinds.add_parser("sweep", help="mIoU over a setting such as lambda, reverse_weight (figure A2)")
    sweep.add_argument("--results", type=Path, nargs="+", required=True, metavar="FILE", help="written by dpcn test")
    sweep.add_argument("--x", default="reverse_weight", metavar="SETTING", help="reverse_weight")
    sweep.add_argument(
        "--x-from", choices=("training", "test"), help="the config.yaml that counts where the two runs' differ"
    )
    for name, text in _EPISODES.items():
        kinds.add_parser(name, help=f"{text} (dpcn figures {name} --help)")
    for kind in (curves, sweep):
        kind.add_argument("--output", required=True, metavar="FILE", help=_OUTPUT)
    args = parser.parse_args(arguments)
    (_draw_curves if args.kind == "curves" else _draw_sweep)(args)


def _draw_curves(args: argparse.Namespace) -> None:
    outputs = _outputs(args.output)
    panels: dict[str, dict[str, Path]] = {}
    lines = []
    for folder in args.runs:
        file = folder / "config.yaml"
        config = read_config(file) if file.is_file() else {}
        title = describe_data(config, otherwise=folder.name)
        label = str(setting(config, "model.network") or folder.name)
        panel = panels.setdefault(title, {})
        if label in panel:
            label = f"{label}, {folder.name}"
        panel[label] = folder / "metrics.csv"
        lines.append(f"{title}: {label}, {folder}{'' if config else ' (no config.yaml: named by its folder)'}")
    _write(outputs, lambda path: fold_curves(panels, path), ["training and validation curves", *lines])


def _draw_sweep(args: argparse.Namespace) -> None:
    outputs = _outputs(args.output)
    results = [read_result(file, args.x, prefer=args.x_from, network=_network_settings) for file in args.results]
    lines = [f"mIoU over {args.x}"]
    for result in results:
        tests = " and ".join(f"{run['protocol']['id']} episodes {run['episodes']}" for run in result.content["runs"])
        checkpoint = result.content["checkpoint"]
        lines.append(
            f"{args.x} {result.x} ({result.where}): mIoU {100 * result.content['miou']:.1f} %, {result.file}, "
            f"protocol {tests}, checkpoint {checkpoint['file']} sha256 {checkpoint['sha256']}"
        )
    points, note = sweep_lines(results, args.x), _sweep_note([result.content for result in results])
    _write(outputs, lambda path: sweep_curve(points, path, x_label=args.x, note=note), lines)


def _sweep_note(tests: Sequence[Mapping[str, Any]]) -> str:
    """The protocols, checkpoints and versions of all points, in a few lines."""
    runs = [run for test in tests for run in test["runs"]]
    protocols = dict.fromkeys(f"{run['protocol']['id']} episodes {run['episodes']}" for run in runs)
    checkpoints = dict.fromkeys(str(test["checkpoint"]["sha256"]) for test in tests)
    versions = dict.fromkeys(
        f"dpcn_modules {test['versions']['dpcn_modules']}, torch {test['versions']['torch']}" for test in tests
    )
    return f"protocol {', '.join(protocols)}; checkpoint sha256 {', '.join(checkpoints)}; {'; '.join(versions)}"


def _network_settings(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    return dataclasses.asdict(settings_of(**recipe)) if "name" in recipe else {}


class _EpisodesCLI(DataCLI):
    """A recipe of which the data is made, with checkpoints beside it."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_argument("--checkpoint", type=str, nargs="+", required=True, help="NAME=FILE, written by dpcn fit")
        parser.add_argument("--indices", type=int, nargs="+", help="of the test's episodes; else one each of 3 classes")


def _draw_episodes(kind: str, arguments: list[str]) -> None:
    arguments = [re.sub("^--episodes(?==|$)", "--data.manifest", each) for each in expand("episodes", arguments)]
    cli = _EpisodesCLI(
        ConfigTask,
        EpisodeDataModule,
        args=arguments,
        run=False,
        seed_everything_default=0,
        parser_kwargs={"description": f"dpcn figures {kind}: {_EPISODES[kind]}; --output {_OUTPUT}"},
    )
    data, fusion = cli.datamodule, cli.config.model.fusion
    data.target = "original"  # images are drawn and scored at their own size, whatever a test does
    outputs, files = _outputs(cli.config.output), _named_files(cli.config.checkpoint)
    networks = {name: load_model(file) for name, file in files.items()}
    windows = _windows(networks) if kind == "activations" else ()
    dataset = data.test_dataset()
    rows, lines = [], []
    for index in _indices(dataset, cli.config.indices):
        spec, names = dataset.spec(index), dataset.source
        class_name = names.class_names[spec.class_id]
        rows.append(_image(dataset, index, networks, fusion, with_maps=bool(windows)))
        supports = ", ".join(names.image_name(support) for support in spec.supports)
        lines.append(f"episode {index}: {class_name}, query {names.image_name(spec.query)}, supports {supports}")
    fused = "" if fusion == "concat" else f"; one-shot masks fused by {fusion}"
    protocol = f"protocol: {data.protocol()}{fused}; episodes {manifest_hash(manifest_lines(dataset))}"
    colours = "blue: masks that were given; orange: predictions; IoU without void pixels"
    hashes = {name: f"sha256 {file_hash(file)}" for name, file in files.items()}
    head = [f"episodes of a test: {_EPISODES[kind]}", protocol, colours]
    head += [f"{name}: {networks[name].recipe}, {file}, {hashes[name]}" for name, file in files.items()]
    note = "; ".join([protocol, *(f"{name} {digest}" for name, digest in hashes.items()), software()])
    options = {"windows": windows} if windows else {}
    _write(outputs, lambda path: episode_strip(rows, path, note=f"{colours}\n{note}", **options), head + lines)


def _named_files(given: Sequence[str]) -> dict[str, Path]:
    """Checkpoints by the names that the figure gives them."""
    files: dict[str, Path] = {}
    for each in given:
        name, separator, file = each.partition("=")
        if not (name and separator and file) or name in files:
            raise ValueError(f"``--checkpoint``: expected NAME=FILE, each with a name of its own, got {each!r}.")
        files[name] = Path(file)
    return files


def _windows(networks: Mapping[str, FewShotNetwork]) -> tuple[tuple[int, int], ...]:
    """The windows of the one network, whose activation maps they name."""
    if len(networks) != 1:
        raise ValueError(f"``--checkpoint``: expected one for activations, got {', '.join(networks)}.")
    ((name, network),) = networks.items()
    activation = getattr(network, "support_activation", None)
    if activation is None:
        raise ValueError(
            f"``--checkpoint``: expected a network with activation maps (dpcn_*), got {name}, which is "
            f"{network.recipe.get('name')} and has none; `dpcn figures strips` draws its predictions."
        )
    return cast(tuple[tuple[int, int], ...], activation.windows)


def _indices(dataset: EpisodeDataset, given: Sequence[int] | None) -> list[int]:
    """The episodes asked for, else the first one of each of the first classes: nothing is picked by how it looks."""
    if given:
        wrong = [index for index in given if not 0 <= index < dataset.episodes]
        if wrong:
            raise ValueError(f"``--indices``: expected 0 to {dataset.episodes - 1}, the test's episodes, got {wrong}.")
        return list(given)
    first: dict[int, int] = {}
    for index in range(dataset.episodes):
        first.setdefault(dataset.spec(index).class_id, index)
        if len(first) == _CLASSES_SHOWN:
            break
    return list(first.values())


def _image(
    dataset: EpisodeDataset, index: int, networks: Mapping[str, FewShotNetwork], fusion: Fusion, *, with_maps: bool
) -> EpisodeRow:
    """An episode with what the networks make of it, at the images' own sizes."""
    spec, episode, source = dataset.spec(index), dataset[index], dataset.source
    supports = [source.load(support) for support in spec.supports]
    masks = [annotate(target_mask(mask, spec.class_id), dataset.annotation) for _, mask in supports]
    height, width = episode.query_mask.shape
    image = EpisodeRow(
        support_image=[image for image, _ in supports],
        support_mask=masks,
        query_image=source.load(spec.query)[0],
        prediction={name: _segment(network, episode, fusion) for name, network in networks.items()},
        target=episode.query_mask,
        label=f"{source.class_names[spec.class_id]}\nepisode {index}",
    )
    if not with_maps:
        return image
    (network,) = networks.values()
    with torch.inference_mode():
        prediction = network(*_views(episode)[0])

    def at_size(maps: Tensor) -> Tensor:
        return torch.stack([logits_at_original_size(each.expand(2, -1, -1), (height, width))[0] for each in maps])

    maps, initial, refined = prediction.activation_maps, prediction.initial_mask, prediction.refined_mask
    return image._replace(
        activation_maps=at_size(maps[0]),
        initial_mask=at_size(initial[0])[0],
        refined_mask=None if refined is None else at_size(refined[0])[0],
    )


def _segment(network: FewShotNetwork, episode: Episode, fusion: Fusion) -> Tensor:
    """The mask as a test would score it, ``(Hi, Wi)`` in {0, 1}."""
    height, width = episode.query_mask.shape
    with torch.inference_mode():
        if fusion == "concat":
            logits = [network(*view).logits for view in _views(episode)]
            return predicted_mask(fuse_scales(logits, (height, width))[0])
        logits = [one_shot_logits(network, *view)[0] for view in _views(episode)]
        return fuse_shots(fuse_scales(logits, (height, width)), fusion)


def _views(episode: Episode) -> list[View]:
    """The episode at each of its sizes, as a batch of one."""
    views = (View(episode.query_image, episode.support_images, episode.support_masks), *episode.views)
    return [View(*(part.unsqueeze(0) for part in view)) for view in views]


def _outputs(output: str) -> list[Path]:
    """The files to write."""
    path = Path(output)
    if not path.suffix:
        return [path.with_suffix(".png"), path.with_suffix(".pdf")]
    if path.suffix.lower() not in (".png", ".pdf"):
        raise ValueError(f"``--output``: expected a name that ends in .png or .pdf, or has no suffix, got {output!r}.")
    return [path]


def _write(outputs: Sequence[Path], draw: Callable[[Path], object], caption: Sequence[str]) -> None:
    """Draw the figure in every format, and write its caption beside it."""
    for path in outputs:
        draw(path)
    text = outputs[0].with_suffix(".txt")
    text.write_text("\n".join(caption) + "\n", encoding="utf-8")
    print("\n".join([*caption, f"written to {', '.join(map(str, [*outputs, text]))}"]))

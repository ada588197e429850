"""Draw the paper's figures from logs, results and checkpoints, as PNG and PDF.

python examples/paper/figures.py curves --runs runs/dpcn/version_* --output figures/curves
python examples/paper/figures.py sweep --results runs/dpcn/version_*/test.json --output figures/lambda
python examples/paper/figures.py strips --config CONFIG --checkpoint NAME=FILE NAME=FILE --output figures/strips
python examples/paper/figures.py activations --config CONFIG --checkpoint NAME=FILE --output figures/maps.png
"""

import argparse
import dataclasses
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import LightningArgumentParser
from torch import Tensor

from dpcn_modules import load_model
from dpcn_modules.cli.episodes import DataCLI
from dpcn_modules.cli.fit import ConfigTask, expand_protocol
from dpcn_modules.data import EpisodeDataset, View, collate_episodes, manifest_hash, manifest_lines, target_mask
from dpcn_modules.data.boxes import annotate
from dpcn_modules.evaluation import Predictor, logits_at_original_size
from dpcn_modules.evaluation.results import file_hash, read_result, software
from dpcn_modules.models import FewShotNetwork
from dpcn_modules.training import EpisodeDataModule
from dpcn_modules.viz import EpisodeRow, episode_strip

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that this file can be run and imported alike
from paper.plots import fold_curves, sweep_curve
from paper.runs import described, find_setting, read_config, setting, sweep_lines

EPISODES = {
    "strips": "supports, query, the predictions of checkpoints side by side, ground truth (figures 5, A3 to A6)",
    "activations": "the activation maps and pseudo masks of a checkpoint (figure A7)",
}
OUTPUT = "NAME.png, NAME.pdf, or a name without suffix for both; a caption goes to NAME.txt"
CLASSES_SHOWN = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw a figure as the command line says, and give the exit status; an expected error is one line on stderr."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if arguments and arguments[0] in EPISODES:
            draw_episodes(arguments[0], arguments[1:])
        else:
            args = parse(arguments)
            args.draw(args)
    except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
        print(f"figures.py: error: {error}", file=sys.stderr)
        return 2
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the arguments of curves and sweep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(required=True, metavar="{curves,sweep,strips,activations}")
    files: dict[str, Any] = {"type": Path, "nargs": "+", "required": True}
    curves = kinds.add_parser("curves", help="loss and validation mIoU, one panel a fold (figure A1)")
    curves.add_argument("--runs", metavar="DIR", help="holds metrics.csv and config.yaml", **files)
    sweep = kinds.add_parser("sweep", help="mIoU over a setting such as lambda, reverse_weight (figure A2)")
    sweep.add_argument("--results", metavar="FILE", help="written by dpcn test", **files)
    sweep.add_argument("--x", default="reverse_weight", metavar="SETTING", help="(%(default)s)")
    for kind, draw in ((curves, draw_curves), (sweep, draw_sweep)):
        kind.add_argument("--output", required=True, metavar="FILE", help=OUTPUT)
        kind.set_defaults(draw=draw)
    for name, text in EPISODES.items():
        kinds.add_parser(name, help=f"{text} ({name} --help)")
    return parser.parse_args(arguments)


def draw_curves(args: argparse.Namespace) -> None:
    """Trainings, in a panel for each data set and fold."""
    outputs = output_files(args.output)
    panels: dict[str, dict[str, Path]] = {}
    lines = ["training and validation curves"]
    for folder in args.runs:
        file = folder / "config.yaml"
        config = read_config(file) if file.is_file() else {}
        data, fold = setting(config, "data.source.class_path"), setting(config, "data.source.init_args.fold")
        title = folder.name if data is None else str(data).rsplit(".", 1)[-1]
        title += "" if data is None or fold is None else f", fold {fold}"
        label = str(setting(config, "model.network") or folder.name)
        panel = panels.setdefault(title, {})
        if label in panel:
            label = f"{label}, {folder.name}"
        panel[label] = folder / "metrics.csv"
        lines.append(f"{title}: {label}, {folder}{'' if config else ' (no config.yaml: named by its folder)'}")
    write(outputs, lambda path: fold_curves(panels, path), lines)


def draw_sweep(args: argparse.Namespace) -> None:
    """Tests over the values of a setting, with the protocols, checkpoints and versions of all points in a note."""
    outputs = output_files(args.output)
    results = [read_result(file) for file in args.results]
    found = [find_setting(args.x, file, result) for file, result in zip(args.results, results, strict=True)]
    lines = [f"mIoU over {args.x}"]
    protocols, hashes, versions = [], [], []
    for file, result, (x, where) in zip(args.results, results, found, strict=True):
        tests = [f"{run['protocol']['id']} episodes {run['episodes']}" for run in result["runs"]]
        checkpoint = result["checkpoint"]
        protocols += tests
        hashes.append(str(checkpoint["sha256"]))
        versions.append("dpcn_modules {dpcn_modules}, torch {torch}".format(**result["versions"]))
        lines.append(
            f"{args.x} {x} ({where}): mIoU {100 * result['miou']:.1f} %, {file}, protocol {' and '.join(tests)}, "
            f"checkpoint {checkpoint['file']} sha256 {checkpoint['sha256']}"
        )
    tested, hashed, made = (dict.fromkeys(each) for each in (protocols, hashes, versions))
    note = f"protocol {', '.join(tested)}; checkpoint sha256 {', '.join(hashed)}; {'; '.join(made)}"
    points = sweep_lines(results, [x for x, _ in found], args.x)
    write(outputs, lambda path: sweep_curve(points, path, x_label=args.x, note=note), lines)


class EpisodesCLI(DataCLI):
    """A config of which the data is made, with checkpoints beside it."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_argument("--checkpoint", type=str, nargs="+", required=True, help="NAME=FILE, written by dpcn fit")
        parser.add_argument("--indices", type=int, nargs="+", help="of the test's episodes; else one each of 3 classes")


def draw_episodes(kind: str, arguments: Sequence[str]) -> None:
    """Episodes of a test as rows of images, with the predictions or the maps of networks."""
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    arguments = expand_protocol("episodes", list(arguments))
    cli = EpisodesCLI(
        ConfigTask,
        EpisodeDataModule,
        args=[re.sub("^--episodes(?==|$)", "--data.manifest", each) for each in arguments],
        run=False,
        seed_everything_default=0,
        parser_kwargs={"description": f"figures.py {kind}: {EPISODES[kind]}; --output {OUTPUT}"},
    )
    data, fusion = cli.datamodule, cli.config.model.fusion
    data.target = "original"  # images are drawn and scored at their own size, whatever a test does
    outputs, files = output_files(cli.config.output), named_files(cli.config.checkpoint)
    networks = {name: load_model(file) for name, file in files.items()}
    windows = windows_of(networks) if kind == "activations" else ()
    predictors = {name: Predictor(network, fusion=fusion) for name, network in networks.items()}
    dataset = data.test_dataset()
    fused = "" if fusion == "concat" else f"; one-shot masks fused by {fusion}"
    protocol = f"protocol: {data.protocol()}{fused}; episodes {manifest_hash(manifest_lines(dataset))}"
    colours = "blue: masks that were given; orange: predictions; IoU without void pixels"
    hashes = {name: f"sha256 {file_hash(file)}" for name, file in files.items()}
    lines = [f"episodes of a test: {EPISODES[kind]}", protocol, colours]
    for name, network in networks.items():
        overrides = None if network.settings is None else dataclasses.asdict(network.settings)
        lines.append(f"{name}: {described(network.name, overrides)}, {files[name]}, {hashes[name]}")
    rows = []
    for index in chosen_indices(dataset, cli.config.indices):
        rows.append(episode_row(dataset, index, predictors, with_maps=bool(windows)))
        spec, source = dataset.spec(index), dataset.source
        query, *supports = [source.image_name(image) for image in (spec.query, *spec.supports)]
        class_name = source.class_names[spec.class_id]
        lines.append(f"episode {index}: {class_name}, query {query}, supports {', '.join(supports)}")
    note = "; ".join([protocol, *(f"{name} {digest}" for name, digest in hashes.items()), software()])
    options = {"windows": windows} if windows else {}
    write(outputs, lambda path: episode_strip(rows, path, note=f"{colours}\n{note}", **options), lines)


def named_files(given: Sequence[str]) -> dict[str, Path]:
    """Checkpoints by the names that the figure gives them."""
    files: dict[str, Path] = {}
    for each in given:
        name, _, file = each.partition("=")
        if not (name and file) or name in files:
            raise ValueError(f"``--checkpoint``: expected NAME=FILE, each with a name of its own, got {each!r}.")
        files[name] = Path(file)
    return files


def windows_of(networks: Mapping[str, FewShotNetwork]) -> Sequence[tuple[int, int]]:
    """The windows of the one network, whose activation maps they name."""
    if len(networks) != 1:
        raise ValueError(f"``--checkpoint``: expected one for activations, got {', '.join(networks)}.")
    ((name, network),) = networks.items()
    activation: Any = getattr(network, "support_activation", None)
    if activation is None:
        raise ValueError(
            f"``--checkpoint``: expected a network with activation maps (dpcn_*), got {name}, which is {network.name} "
            f"and has none; `figures.py strips` draws its predictions."
        )
    return tuple(activation.windows)


def chosen_indices(dataset: EpisodeDataset, given: Sequence[int] | None) -> list[int]:
    """The episodes asked for, else the first one of each of the first classes: nothing is picked by how it looks."""
    if given:
        wrong = [index for index in given if not 0 <= index < dataset.episodes]
        if wrong:
            raise ValueError(f"``--indices``: expected 0 to {dataset.episodes - 1}, the test's episodes, got {wrong}.")
        return list(given)
    first: dict[int, int] = {}
    for index in range(dataset.episodes):
        first.setdefault(dataset.spec(index).class_id, index)
        if len(first) == CLASSES_SHOWN:
            break
    return list(first.values())


def episode_row(
    dataset: EpisodeDataset, index: int, predictors: Mapping[str, Predictor], *, with_maps: bool
) -> EpisodeRow:
    """An episode with what the networks make of it, at the images' own sizes."""
    spec, episode, source = dataset.spec(index), dataset[index], dataset.source
    batch = collate_episodes([episode])
    supports = [source.load(support) for support in spec.supports]
    row = EpisodeRow(
        support_image=[image for image, _ in supports],
        support_mask=[annotate(target_mask(mask, spec.class_id), dataset.annotation) for _, mask in supports],
        query_image=source.load(spec.query)[0],
        prediction={name: predictor.masks(batch)[0] for name, predictor in predictors.items()},
        target=episode.query_mask,
        label=f"{source.class_names[spec.class_id]}\nepisode {index}",
    )
    if not with_maps:
        return row
    (predictor,) = predictors.values()
    view = View(batch.query_image, batch.support_images, batch.support_masks)
    shown: Any = Predictor(predictor.model).predict(view)[0]  # maps are of all shots together

    def at_size(maps: Tensor) -> Tensor:
        size = (episode.query_mask.shape[0], episode.query_mask.shape[1])
        return torch.stack([logits_at_original_size(each.expand(2, -1, -1), size)[0] for each in maps[0]])

    return row._replace(
        activation_maps=at_size(shown.activation_maps),
        initial_mask=at_size(shown.initial_mask)[0],
        refined_mask=None if shown.refined_mask is None else at_size(shown.refined_mask)[0],
    )


def output_files(output: str) -> list[Path]:
    """The files to write."""
    path = Path(output)
    if not path.suffix:
        return [path.with_suffix(".png"), path.with_suffix(".pdf")]
    if path.suffix.lower() not in (".png", ".pdf"):
        raise ValueError(f"``--output``: expected a name that ends in .png or .pdf, or has no suffix, got {output!r}.")
    return [path]


def write(outputs: Sequence[Path], draw: Callable[[Path], object], caption: Sequence[str]) -> None:
    """Draw the figure in every format, and write its caption beside it."""
    for path in outputs:
        draw(path)
    text = outputs[0].with_suffix(".txt")
    text.write_text("\n".join(caption) + "\n", encoding="utf-8")
    print("\n".join([*caption, f"written to {', '.join(map(str, [*outputs, text]))}"]))


if __name__ == "__main__":
    sys.exit(main())

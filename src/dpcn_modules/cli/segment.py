"""`dpcn segment`: masks of something new in images, shown by a few masked images of it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from dpcn_modules.data.datasets.files import replacing
from dpcn_modules.data.io import SUFFIXES, load_image
from dpcn_modules.data.listing import image_files
from dpcn_modules.errors import DPCNError, InputError, InputFileError
from dpcn_modules.segmenter import FewShotSegmenter
from dpcn_modules.viz.overlay import overlay


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    paths = {"type": Path, "nargs": "+", "required": True, "metavar": "PATH"}
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="written by dpcn fit")
    parser.add_argument("--support", **paths, help="one or more images that show the object")  # type: ignore[arg-type]
    parser.add_argument("--mask", **paths, help="their masks, in the same order")  # type: ignore[arg-type]
    parser.add_argument(
        "--class-id", type=int, nargs="+", metavar="N", help="the object's ids in masks of class ids (PASCAL VOC's)"
    )
    parser.add_argument("--void", type=int, metavar="N", help="value of mask pixels that do not count")
    parser.add_argument("--object", type=int, metavar="N", help="value of the object, in masks with both 1 and 255")
    parser.add_argument("--query", **paths, help="images to segment, or folders of them")  # type: ignore[arg-type]
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="gets NAME.png and NAME_overlay.jpg")
    parser.add_argument(
        "--size", type=int, metavar="N", help="side of the square that the network sees (as in its training)"
    )
    parser.add_argument("--threshold", type=float, default=0.5, metavar="P", help="probability of the object, 0.5")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: the GPU if there is one"
    )


def run(args: argparse.Namespace) -> int:
    """Segment the images; exit status 1 if one could not be read (it is named on stderr, the others are done), else 0.

    Raises:
        FileNotFoundError: checkpoint or support is missing, or a query folder holds no image.
        ValueError: as :class:`FewShotSegmenter`, two queries of one name, or a result that would replace a given file.
    """
    queries = _images(args.query)
    results = _results(queries, args.output, inputs=[*queries, *args.support, *args.mask])
    device = None if args.device == "auto" else args.device
    segmenter = FewShotSegmenter.from_checkpoint(args.checkpoint, size=args.size, device=device)
    segmenter.set_support(args.support, args.mask, class_id=args.class_id, void=args.void, object=args.object)
    args.output.mkdir(parents=True, exist_ok=True)
    broken = 0
    for query, (mask_path, overlay_path) in zip(queries, results, strict=True):
        try:
            image = load_image(query)
        except DPCNError as error:
            broken += 1
            print(f"dpcn: skipped: {error}", file=sys.stderr)
            continue
        mask = segmenter.segment(image, threshold=args.threshold)
        with replacing(mask_path) as part:
            Image.fromarray((mask * 255).numpy()).save(part, format="PNG")
        # Without subsampling of colours, which would blur the outline.
        painted = overlay(image, mask).permute(1, 2, 0).numpy()
        with replacing(overlay_path) as part:
            Image.fromarray(painted).save(part, format="JPEG", quality=90, subsampling=0)
        print(f"{query}: {mask.float().mean():.1%} foreground -> {mask_path}")
    if broken:
        print(f"dpcn: {broken} of {len(queries)} images could not be read.", file=sys.stderr)
    return 1 if broken else 0


def _images(paths: Sequence[Path]) -> list[Path]:
    """The paths, each folder replaced by the images in it."""
    images = []
    for path in paths:
        found = image_files(path) if path.is_dir() else [path]
        if not found:
            raise InputFileError(f"``--query``: no images ({', '.join(SUFFIXES)}) in the folder {path}.")
        images += found
    return images


def _results(queries: Sequence[Path], output: Path, *, inputs: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Where the mask and the overlay of each query go; no two in one place, and none over what the user has."""
    owners: dict[Path, Path] = {}
    folders = {path.resolve().parent for path in inputs}
    results = []
    for query in queries:
        targets = output / f"{query.stem}.png", output / f"{query.stem}_overlay.jpg"
        for target in targets:
            if target in owners:
                raise InputError(
                    f"``--query``: expected names that differ in more than folder and suffix, got {owners[target]} and "
                    f"{query}, which would both be written to {target}; segment them in two runs."
                )
            owners[target] = query
            if output.resolve() in folders and target.exists():
                raise InputError(
                    f"``--output``: {target} would be replaced, and it lies among the images that were given; "
                    f"choose another folder."
                )
        results.append(targets)
    return results

"""Kill processes (SIGKILL) while they write, and read what they left with the library's own readers.

Each kind of file is written over and over, with contents that differ; a file that the library reads afterwards must be
one of them, complete. Temporary files lie on another file system where the machine has a RAM disk: there a move is a
copy.
"""

import json
import os
import random
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import Log, kill, parser, start
from lightning.pytorch.plugins import TorchCheckpointIO
from PIL import Image

from dpcn_modules import build_model
from dpcn_modules.data import Coco20i, EpisodeDataset, Shapes, TestTransform, manifest_lines
from dpcn_modules.data.datasets.files import replacing
from dpcn_modules.data.datasets.folds import COCO_CLASSES
from dpcn_modules.data.episodes.manifest import read_manifest
from dpcn_modules.data.feature_store import FeatureStore, Record
from dpcn_modules.data.io import load_mask
from dpcn_modules.evaluation import Protocol, Score
from dpcn_modules.evaluation.results import Result, Run, read_result
from dpcn_modules.models import load_model, read_checkpoint
from dpcn_modules.training.checkpoints import AtomicCheckpointIO

CLASSES = tuple(f"class {number}" for number in range(1, 200))
SIDE, IMAGES = 600, 12


def write_checkpoints(folder: Path, io: TorchCheckpointIO) -> None:
    """A checkpoint of Lightning, with all its weights one number."""
    model = build_model("dpcn_small")
    content = {"network": model.name, "settings": {}, "loops": {}, "pytorch-lightning_version": "2.5"}
    for number in _endless(folder):
        state = {f"model.{name}": torch.full_like(value, number % 7) for name, value in model.state_dict().items()}
        io.save_checkpoint(content | {"state_dict": state}, folder / "last.ckpt")


def read_checkpoints(folder: Path) -> None:
    values = {float(v) for t in read_checkpoint(folder / "last.ckpt").parameters.values() for v in t.unique()}
    _require(len(values) == 1, f"a mixture of {values}")
    load_model(folder / "last.ckpt")


def write_results(folder: Path) -> None:
    """The result of a test over many classes."""
    names = dict(enumerate(CLASSES, 1))
    protocol = Protocol(
        name="test", data="data", classes=CLASSES, shot=1, episodes=1000, seed=0, sampling="class", size=473
    )
    for number in _endless(folder):
        value = torch.tensor(number % 7 / 10)
        run = Run(protocol, "0" * 12, Score(value, value, dict.fromkeys(names, value)))
        Result([run], names, "dpcn_small", None, "concat", "best").write(folder / "test.json")


def read_results(folder: Path) -> None:
    result = read_result(folder / "test.json")
    values = {result["miou"], *result["runs"][0]["class_iou"].values()}
    _require(len(values) == 1, f"a mixture of {values}")


def write_manifests(folder: Path) -> None:
    """The episodes of a test, as `dpcn episodes` writes them."""
    lists = [
        list(manifest_lines(EpisodeDataset(SHAPES, shot=1, episodes=500, seed=seed, transform=TestTransform(32))))
        for seed in range(3)
    ]
    for number in _endless(folder):
        with replacing(folder / "episodes.jsonl") as part:
            part.write_text("\n".join(lists[number % 3]) + "\n", encoding="utf-8")


def read_manifests(folder: Path) -> None:
    _require(len(read_manifest(folder / "episodes.jsonl", SHAPES, shot=1)) == 500, "not all episodes")


def write_masks(folder: Path) -> None:
    """A predicted mask, as `dpcn segment` writes it."""
    noise = np.random.default_rng(0).integers(0, 2, (SIDE, SIDE), dtype=np.uint8)
    for number in _endless(folder):
        with replacing(folder / "mask.png") as part:
            Image.fromarray((noise ^ (number % 2)) * 255).save(part, format="PNG")


def read_masks(folder: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 2, (SIDE, SIDE), dtype=np.uint8)
    mask = load_mask(folder / "mask.png").numpy()
    _require(any(np.array_equal(mask, (noise ^ each) * 255) for each in (0, 1)), "another mask")


def write_mask_cache(folder: Path) -> None:
    """The masks that a COCO data set draws on its first use, each time into an empty cache."""
    for number in _endless(folder):
        _coco(folder, f"cache{number}").split("test")


def read_mask_cache(folder: Path) -> None:
    """Every cache, finished or not, gives the masks that are drawn without one."""
    expected = _coco(folder, None).split("test")
    for cache in sorted(folder.glob("cache*")):
        images = _coco(folder, cache.name).split("test")
        for number in expected.images:
            _require(torch.equal(images.load(number)[1], expected.load(number)[1]), f"another mask in {cache.name}")


def write_feature_stores(folder: Path) -> None:
    """Stores of 50 parts, of which each image has features and a mask of its own number."""
    for number in _endless(folder):
        store = FeatureStore(folder / f"store{number}", STORE, write=True)
        for part in range(50):
            values = range(8 * part, 8 * part + 8)
            stages = [
                [torch.full((16, 30, 30), float(value)), torch.full((8, 30, 30), float(value))] for value in values
            ]
            masks = [torch.full((97, 97), value % 256) for value in values]
            store.write([Record(str(v), v % 2, s, mask) for v, s, mask in zip(values, stages, masks, strict=True)])
        store.finish("all")


def read_feature_stores(folder: Path) -> None:
    """Every store has whole parts, those without the mark of completeness too."""
    stores = sorted(folder.glob("store*"))
    for path in stores:
        if not (path / "store.json").is_file():
            continue
        store = FeatureStore(path, STORE)
        present = [value for value in range(400) if (str(value), value % 2) in store]
        _require(len(present) == len(store) and len(present) % 8 == 0, f"{len(present)} of {len(store)} images")
        _require(not store.finished("all") or len(store) == 400, f"{len(store)} images in a complete store")
        for value in present:
            stages, mask = store.read(str(value), value % 2) or ([], torch.empty(0))
            values = {float(v) for stage in stages for v in stage.unique()} | {float(v) for v in mask.unique()}
            _require(values == {float(value), float(value % 256)}, f"a mixture of {values}")


def _endless(folder: Path) -> Iterator[int]:
    """0, 1, ... once all is prepared, which the parent learns from a file."""
    (folder / "started").touch()
    yield from count()


def _coco(folder: Path, cache: str | None) -> Coco20i:
    files = {"test_annotations": "instances.json", "test_images": "images"}
    return Coco20i(folder, 0, cache=cache, min_area=10, classes=["person"], **files)


def make_coco(folder: Path) -> None:
    """Persons as stars of random corners."""
    generator, annotations, images = np.random.default_rng(0), [], []
    (folder / "images").mkdir()
    for number in range(1, IMAGES + 1):
        name = f"{number:012d}.jpg"
        Image.new("RGB", (SIDE, SIDE)).save(folder / "images" / name)
        images.append({"id": number, "file_name": name, "height": SIDE, "width": SIDE})
        shape = [generator.uniform(0, SIDE, 400).round(1).tolist()]
        annotations.append({"id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "segmentation": shape})
    categories = [{"id": number, "name": name} for number, name in enumerate(COCO_CLASSES, 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))


def _require(condition: bool, found: str) -> None:
    if not condition:
        raise AssertionError(f"the file was read, and holds {found}")


STORE = {"version": "1"}
SHAPES = Shapes(0, image_size=32, images_per_class=300).split("test")
KINDS: dict[str, tuple[Callable[..., None], Callable[[Path], None], tuple[Any, ...]]] = {
    "checkpoint": (write_checkpoints, read_checkpoints, (AtomicCheckpointIO(),)),
    "checkpoint by Lightning alone": (write_checkpoints, read_checkpoints, (TorchCheckpointIO(),)),
    "mask cache": (write_mask_cache, read_mask_cache, ()),
    "feature store": (write_feature_stores, read_feature_stores, ()),
    "result": (write_results, read_results, ()),
    "list of episodes": (write_manifests, read_manifests, ()),
    "predicted mask": (write_masks, read_masks, ()),
}


def outcome(folder: Path, read: Callable[[Path], None]) -> str:
    """What the reader says of a file that a killed process left."""
    try:
        read(folder)
    except FileNotFoundError:
        return "none"
    except AssertionError as error:
        return f"wrong: {error}"
    except (ValueError, OSError):
        return "refused"
    return "complete"


def main() -> None:
    options = parser(__doc__, "kill_writing")
    options.add_argument("--kills", type=int, default=100, help="of each kind of file")
    options.add_argument("--kind", choices=["all", *KINDS], default="all", help="of files")
    args = options.parse_args()
    warnings.filterwarnings("ignore")
    log, generator = Log("kill_writing", args), random.Random(args.seed)
    if Path("/dev/shm").is_dir():
        tempfile.tempdir = "/dev/shm"  # Lightning's
    here = tempfile.mkdtemp(dir=Path.home())  # the files themselves lie on a disk
    for kind, (write, read, more) in KINDS.items():
        found: dict[str, int] = {}
        delays = [generator.uniform(0.0, 0.2) for _ in range(args.kills)]
        if args.kind not in ("all", kind) or any(case["kind"] == kind for case in log.cases):
            continue
        for delay in delays:
            with tempfile.TemporaryDirectory(dir=here) as name:
                folder = Path(name)
                if kind == "mask cache":
                    make_coco(folder)
                process = start(write, folder, *more)
                while process.is_alive() and not (folder / "started").is_file():
                    time.sleep(0.001)
                time.sleep(delay)
                if not process.is_alive():
                    raise SystemExit(f"{kind}: the writer ended by itself with status {process.exitcode}.")
                kill(process)
                result = outcome(folder, read)
                found[result] = found.get(result, 0) + 1
        log.add(kind=kind, kills=args.kills, found=found)
    os.rmdir(here)
    ours = [case for case in log.cases if case["kind"] != "checkpoint by Lightning alone"]
    bad = {case["kind"]: sum(n for r, n in case["found"].items() if r not in ("complete", "none")) for case in ours}
    log.write(kills=sum(case["kills"] for case in ours), half_written=sum(bad.values()), by_kind=bad)


if __name__ == "__main__":
    main()

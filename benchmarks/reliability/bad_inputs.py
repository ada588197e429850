"""Throw generated inputs at the readers: each is read as it was drawn, or refused by an error of this library.

    python benchmarks/reliability/bad_inputs.py --count 5000 --out benchmarks/results/reliability_bad_inputs.json

Every input has a known truth (which pixels are the object). An outcome is "right", "refused" (an error of
`dpcn_modules.errors`), "wrong" (another mask came out, without an error) or "crashed" (another error).
"""

import argparse
import collections
import io
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from mask_writers import write_png, write_tiff

import dpcn_modules
from dpcn_modules.data import TestTransform, TrainTransform, as_image, as_mask, binary_mask
from dpcn_modules.errors import DPCNError

Rng = np.random.Generator
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def drawn(rng: Rng) -> np.ndarray:
    """A random object, ``(H, W)`` booleans."""
    width, height = (int(side) for side in rng.integers(8, 90, 2))
    image = Image.new("1", (width, height))
    corners = [(int(rng.integers(width)), int(rng.integers(height))) for _ in range(int(rng.integers(3, 7)))]
    ImageDraw.Draw(image).polygon(corners, fill=1)
    truth = np.array(image)
    truth[height // 2, width // 2] = True
    return truth


def grey(truth: np.ndarray, path: Path, rng: Rng) -> None:
    Image.fromarray(truth.astype(np.uint8) * int(rng.choice([1, 255]))).save(path)


def one_bit(truth: np.ndarray, path: Path, rng: Rng) -> None:
    Image.fromarray(truth).save(path)


def few_bits(truth: np.ndarray, path: Path, rng: Rng) -> None:
    bits = int(rng.choice([1, 2, 4]))
    write = write_png if rng.random() < 0.5 else lambda *args: write_tiff(*args, photometric=1)
    write(path, truth.astype(np.uint8), bits)


def palette(truth: np.ndarray, path: Path, rng: Rng) -> None:
    colours = [BLACK, WHITE] + [tuple(int(part) for part in rng.integers(0, 256, 3)) for _ in range(6)]
    order = rng.permutation(len(colours)).tolist()
    indices = np.where(truth, order.index(1), order.index(0)).astype(np.uint8)
    write_png(path, indices, 4, palette=[colours[place] for place in order])


def quantized(truth: np.ndarray, path: Path, rng: Rng) -> None:
    shown = Image.fromarray(truth.astype(np.uint8) * 255).convert("RGB")
    if rng.random() < 0.5:
        shown.quantize(int(rng.integers(2, 9))).save(path)
    else:
        shown.save(path, format="GIF")


def coloured(truth: np.ndarray, path: Path, rng: Rng) -> None:
    colour = tuple(int(part) for part in rng.integers(0, 256, 3))
    Image.fromarray(np.where(truth[..., None], colour, BLACK).astype(np.uint8)).save(path)


def transparent(truth: np.ndarray, path: Path, rng: Rng) -> None:
    inside, outside = (WHITE, BLACK) if rng.random() < 0.5 else (BLACK, WHITE)
    pixels = np.where(truth[..., None], (*inside, 255), (*outside, 0)).astype(np.uint8)
    image = Image.fromarray(pixels)
    image = image.convert("LA") if rng.random() < 0.5 else image
    image.save(path)


def colour_key(truth: np.ndarray, path: Path, rng: Rng) -> None:
    white_inside = rng.random() < 0.5
    image = Image.fromarray((truth == white_inside).astype(np.uint8) * 255)
    mode = rng.choice(["L", "RGB", "P"])
    key = 255 * int(not white_inside)
    image.convert(mode).save(path, transparency=(key,) * 3 if mode == "RGB" else key)


def sixteen_bit(truth: np.ndarray, path: Path, rng: Rng) -> None:
    Image.fromarray(truth.astype(np.uint16) * int(rng.choice([1, 255, 65535]))).save(path)


def tiff(truth: np.ndarray, path: Path, rng: Rng) -> None:
    software = str(rng.choice(["tifffile.py", "a scanner", ""]))
    write_tiff(
        path, truth.astype(np.uint8), int(rng.choice([1, 8])), photometric=int(rng.integers(2)), software=software
    )


def fax(truth: np.ndarray, path: Path, rng: Rng) -> None:
    Image.fromarray(truth).save(path, format="TIFF", compression=str(rng.choice(["group3", "group4"])))


def lossy(truth: np.ndarray, path: Path, rng: Rng) -> None:
    kind = str(rng.choice(["JPEG", "WEBP", "JPEG2000"]))
    Image.fromarray(truth.astype(np.uint8) * 255).convert("RGB").save(
        path, format=kind, quality=int(rng.integers(60, 101))
    )


def grey_map(truth: np.ndarray, path: Path, rng: Rng) -> None:
    highest = int(rng.integers(1, 256))
    header = f"P5\n{truth.shape[1]} {truth.shape[0]}\n{highest}\n".encode()
    path.write_bytes(header + truth.astype(np.uint8).tobytes())


def stray(truth: np.ndarray, path: Path, rng: Rng) -> None:
    values = truth.astype(np.uint8) * 255
    values[0, 0] = int(rng.integers(1, 255))
    Image.fromarray(values).save(path)


def soft(truth: np.ndarray, path: Path, rng: Rng) -> None:
    small = Image.fromarray(truth.astype(np.uint8) * 255)
    small.resize((small.width * 2 + 1, small.height * 2 + 1), Image.Resampling.BILINEAR).save(path)


def cut(truth: np.ndarray, path: Path, rng: Rng) -> None:
    kind = str(rng.choice(["PNG", "TIFF", "BMP", "GIF"]))
    Image.fromarray(truth.astype(np.uint8) * 255).save(path, format=kind)
    content = path.read_bytes()
    path.write_bytes(content[: int(rng.integers(0, len(content)))])


def flipped(truth: np.ndarray, path: Path, rng: Rng) -> None:
    grey(truth, path, rng)
    content = bytearray(path.read_bytes())
    for place in rng.integers(0, len(content), int(rng.integers(1, 4))):
        content[place] ^= int(rng.integers(1, 256))
    path.write_bytes(bytes(content))


FILES: tuple[Callable[[np.ndarray, Path, Rng], None], ...] = (
    *(grey, one_bit, few_bits, palette, quantized, coloured, transparent, colour_key, sixteen_bit, tiff, fax, lossy),
    *(grey_map, stray, soft, cut, flipped),
)
DTYPES = ("bool", "u1", "i1", "u2", ">u2", "i4", "i8", "u8", "f2", "f4", "f8", "c8", "U3", "O")


def mask_file(rng: Rng, folder: Path) -> tuple[str, Any, np.ndarray]:
    """A mask file, given by path, bytes, open file or PIL image."""
    truth, write, path = drawn(rng), FILES[int(rng.integers(len(FILES)))], folder / "mask.png"
    write(truth, path, rng)
    source: Any = path
    kind = int(rng.integers(4))
    if kind == 1:
        source = path.read_bytes()
    elif kind == 2:
        source = io.BytesIO(path.read_bytes())
    return write.__name__, source, truth


def mask_array(rng: Rng, folder: Path) -> tuple[str, Any, np.ndarray]:
    """An array or tensor of any dtype and of nearly any shape."""
    truth = drawn(rng)
    dtype = str(rng.choice(DTYPES))
    array: Any = (truth * int(rng.choice([1, 1, 255]))).astype(dtype)
    change = int(rng.integers(8))
    if change == 0:
        array = array[None]
    elif change == 1:
        array = array[..., None].repeat(3, -1)
    elif change == 2:
        array = array[:0]
    elif change == 3 and array.dtype.kind == "f":
        array = array * np.float32(rng.choice([0.5, np.nan, np.inf, -1]))
    elif change == 4:
        array = array[::-1, ::-1]
        truth = truth[::-1, ::-1]
    if array.dtype.kind in "uifb" and array.dtype.isnative and all(step > 0 for step in array.strides) and change == 5:
        array = torch.from_numpy(array)
    return f"array {dtype}", array, truth


def judged(read: Callable[[], np.ndarray], truth: np.ndarray) -> tuple[str, str]:
    """The outcome of one input, and what went wrong."""
    try:
        found = read()
    except DPCNError:
        return "refused", ""
    except Exception as error:  # whatever else comes out is what is looked for
        return "crashed", repr(error)
    if found.shape == truth.shape and (found == truth).all():
        return "right", ""
    return "wrong", f"{int((found != truth).sum()) if found.shape == truth.shape else found.shape} pixels differ"


def object_of(source: Any) -> np.ndarray:
    result: np.ndarray = (binary_mask(as_mask(source, palette="object"), "mask") == 1).numpy()
    return result


def transformed(rng: Rng, folder: Path) -> tuple[str, Callable[[], np.ndarray], np.ndarray]:
    """An image and mask of any dtype through a transform: some foreground comes out, and no padding as foreground."""
    truth = drawn(rng)
    image: Any = torch.from_numpy(rng.integers(0, 256, (3, *truth.shape), dtype=np.uint8))
    mask: Any = torch.from_numpy(truth)
    kind = int(rng.integers(5))
    image = (image / 255, image, image.to(torch.int32), (image / 255 - 0.45) / 0.22, image.double() / 255)[kind]
    mask = mask.to((torch.bool, torch.uint8, torch.float32, torch.int64)[int(rng.integers(4))])
    transform = TestTransform(96) if rng.random() < 0.5 else TrainTransform(96, degrees=0)

    def read() -> np.ndarray:
        pixels, seen = transform(image, mask)
        share = float((seen == 1).sum()) / (96 * 96)
        return np.array([bool(0 < share < 1) and abs(float(pixels.mean())) < 3])

    return "transform", read, np.array([True])


def picture(rng: Rng, folder: Path) -> tuple[str, Callable[[], np.ndarray], np.ndarray]:
    """An image array of any dtype, or a damaged image file: a uint8 tensor (3, H, W), or an error."""
    if rng.random() < 0.5:
        dtype = str(rng.choice(DTYPES))
        shapes = [(), (4,), (5, 7), (5, 7, 3), (5, 7, 4), (3, 5, 7), (0, 7, 3), (1, 5, 7, 3)]
        shape = shapes[int(rng.integers(len(shapes)))]
        source: Any = (rng.random(shape) * float(rng.choice([1, 255, -1]))).astype(dtype)
    else:
        path = folder / "image.jpg"
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
        content = path.read_bytes()
        if rng.random() < 0.7:
            path.write_bytes(content[: int(rng.integers(0, len(content)))])
        source = path

    def read() -> np.ndarray:
        image = as_image(source)
        return np.array([image.dtype == torch.uint8 and image.ndim == 3 and image.shape[0] == 3])

    return "image", read, np.array([True])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=3000, help="inputs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    outcomes: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    bad = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(args.count):
            rng = np.random.default_rng([args.seed, number])
            make = (mask_file, mask_file, mask_array, transformed, picture)[number % 5]
            kind, source, truth = make(rng, folder)
            read = source if make in (transformed, picture) else lambda source=source: object_of(source)
            outcome, what = judged(read, truth)
            outcomes[kind][outcome] += 1
            if what:
                bad.append({"number": number, "kind": kind, "outcome": outcome, "what": what[:200]})
    total = sum(outcomes.values(), collections.Counter())
    for kind, counts in sorted(outcomes.items()):
        print(f"{kind:16} {dict(counts)}")
    print("all", dict(total))
    for each in bad[:20]:
        print(each)
    if args.out:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
        result = {
            "command": f"python benchmarks/reliability/bad_inputs.py --count {args.count} --seed {args.seed}",
            "commit": commit.stdout.strip(),
            "version": dpcn_modules.__version__,
            "outcomes": {kind: dict(counts) for kind, counts in sorted(outcomes.items())},
            "total": dict(total),
            "bad": bad,
        }
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

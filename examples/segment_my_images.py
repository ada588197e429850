"""Segment objects in your own images, given one or a few images in which such an object is masked.

    python examples/segment_my_images.py                                  # generated images, untrained network
    python examples/segment_my_images.py --checkpoint runs/demo/DPCN/last.ckpt
    python examples/segment_my_images.py --checkpoint last.ckpt --support cup1.jpg cup2.jpg \\
        --mask cup1.png cup2.png --query table.jpg

Writes the mask and an overlay to runs/segment.
"""

import argparse
from pathlib import Path

from torchvision.utils import save_image

from dpcn_modules import FewShotSegmenter, build_model
from dpcn_modules.data import Shapes
from dpcn_modules.data.io import load_image
from dpcn_modules.viz import overlay

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--checkpoint", help="checkpoint of dpcn fit or make demo; default: an untrained network")
parser.add_argument("--support", nargs="+", help="images that show the object")
parser.add_argument("--mask", nargs="+", help="their masks: the object white or 1, the rest 0")
parser.add_argument("--query", help="the image to segment")
parser.add_argument("--output", type=Path, default=Path("runs/segment"))
args = parser.parse_args()

if args.query:
    support, masks, query = args.support, args.mask, load_image(args.query)
else:  # three generated images of one held-out class
    images = Shapes(fold=0).split("test")
    class_id = 1
    first, second, third = (images.load(i) for i in images.images_of(class_id)[:3])
    support, masks = [first[0], second[0]], [(mask == class_id).byte() for _, mask in (first, second)]
    query = third[0]

if args.checkpoint:
    segmenter = FewShotSegmenter.from_checkpoint(args.checkpoint)
else:
    print("no --checkpoint: the network is untrained, so its mask is not meaningful")
    segmenter = FewShotSegmenter(build_model("dpcn_small"), size=64)

segmenter.set_support(support, masks)  # encoded once
mask = segmenter.segment(query)  # call it for any number of images

args.output.mkdir(parents=True, exist_ok=True)
save_image(mask.float().unsqueeze(0), args.output / "mask.png")
save_image(overlay(query, mask) / 255, args.output / "overlay.png")
print(f"{100 * mask.float().mean():.1f} % of the image is the object; mask.png and overlay.png are in {args.output}")

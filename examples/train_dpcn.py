"""Train DPCN by the library: on generated shapes by default, on PASCAL-5i with a VOC folder.

    python examples/train_dpcn.py                              # seconds for 50 steps, on the CPU
    python examples/train_dpcn.py --voc VOC2012 --network dpcn_resnet50 --weights imagenet --size 473

`dpcn fit` does the same from a recipe; this is how it looks in Python.
"""

import argparse

from lightning import Trainer, seed_everything

from dpcn_modules import build_model
from dpcn_modules.data import Pascal5i, Shapes, TestTransform, TrainTransform
from dpcn_modules.training import EpisodeDataModule, FewShotTask

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--voc", help="a VOC folder; without it, generated shapes")
parser.add_argument("--fold", type=int, default=0, choices=range(4))
parser.add_argument("--classes", nargs="+", help="of the VOC folder: only these, where others have too few pictures")
parser.add_argument("--shot", type=int, default=1)
parser.add_argument("--network", default="dpcn_small")
parser.add_argument("--weights", help="of the backbone: imagenet, or a file")
parser.add_argument("--size", type=int, default=64, help="side of the square that the network sees")
parser.add_argument("--steps", type=int, default=50)
parser.add_argument("--batch-size", type=int, default=8)
parser.add_argument("--test-episodes", type=int, default=50)
parser.add_argument("--workers", type=int, default=0)
args = parser.parse_args()
seed_everything(0, verbose=False)

if args.voc:
    source = Pascal5i(args.voc, args.fold, classes=args.classes)
    train_transform = TrainTransform(args.size, long_side=None if args.size >= 400 else args.size)
else:
    source = Shapes(args.fold, picture_size=args.size)
    train_transform = TestTransform(args.size)

data = EpisodeDataModule(
    source,
    shot=args.shot,
    size=args.size,
    batch_size=args.batch_size,
    episodes_per_epoch=args.steps * args.batch_size,
    val_episodes=20,
    test_episodes=args.test_episodes,
    train_transform=train_transform,
    workers=args.workers,
    protocol_name="example",
)
model = build_model(args.network, weights=args.weights)
pretrained = args.weights is not None
task = FewShotTask(model, schedule="sgd_poly" if pretrained else "adamw_one_cycle", lr=5e-3 if pretrained else 2e-3)
trainer = Trainer(max_epochs=1, default_root_dir="runs/train_dpcn", use_distributed_sampler=False)
trainer.fit(task, data)
trainer.test(task, data, verbose=False)
names = data.pictures("test").class_names
for class_id, iou in task.test_score.class_iou.items():
    print(f"{names[class_id]:<16} {100 * iou:5.1f}")
print(f"mIoU {100 * task.test_score.miou:.1f}, FB-IoU {100 * task.test_score.fb_iou:.1f}; {data.protocol()}")

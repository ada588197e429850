"""Train DPCN in Python: on generated shapes, or on PASCAL-5i with a VOC folder.

    python examples/train_dpcn.py                              # 50 steps, seconds on a CPU
    python examples/train_dpcn.py --voc VOC2012 --network dpcn_resnet50 --weights imagenet --size 473

`dpcn fit` does the same from a config file. Code that does not depend on the network is in _training.py.
"""

from _training import FROM_SCRATCH, make_data, parse_arguments, print_score, test, train
from lightning import seed_everything

from dpcn_modules import build_model
from dpcn_modules.training import FewShotTask

# The paper's settings; the task computes the paper's loss in both directions by default.
PUBLISHED = {"schedule": "sgd_poly", "lr": 5e-3}

args = parse_arguments(__doc__, network="dpcn_small")
seed_everything(0, verbose=False)
data = make_data(args)
model = build_model(args.network, weights=args.weights)
task = FewShotTask(model, **(PUBLISHED if args.weights else FROM_SCRATCH))
train(task, data, "runs/train_dpcn")
print_score(test(task, data), data)

"""Add DCM to CANet, train it and test it: on generated shapes, or on PASCAL-5i with a VOC folder.

    python examples/train_canet_dcm.py                         # from scratch, 50 steps, seconds on a CPU
    python examples/train_canet_dcm.py --voc VOC2012 --network canet_resnet50 --weights imagenet --size 321
    python examples/train_canet_dcm.py --host-checkpoint last.ckpt --train adapter  # a trained CANet, frozen

A trained host network is also tested before DCM is added, and both scores are printed.
"""

from _training import FROM_SCRATCH, make_data, make_host, parse_arguments, print_score, test, train
from lightning import seed_everything

from dpcn_modules import add_dcm
from dpcn_modules.training import FewShotTask

# The settings of CANet's authors, for a frozen backbone. The loss is the cross-entropy of the single output.
PUBLISHED = {"schedule": "sgd_constant", "lr": 2.5e-3, "weight_decay": 5e-4}

args = parse_arguments(__doc__, network="canet_small", host=True)
seed_everything(0, verbose=False)
data = make_data(args)
host = make_host(args)
before = test(FewShotTask(host), data) if args.published or args.host_checkpoint else None
add_dcm(host, train=args.train)  # until the adapter is trained, the logits are bit for bit the same as without it
task = FewShotTask(host, **(PUBLISHED if host.backbone.trainable == "none" else FROM_SCRATCH))
train(task, data, "runs/train_canet_dcm")
print_score(test(task, data), data, before=before)

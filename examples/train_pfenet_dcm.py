"""Add DCM to PFENet, train it and test it: on generated shapes, or on PASCAL-5i with a VOC folder.

    python examples/train_pfenet_dcm.py                        # from scratch, 50 steps, seconds on a CPU
    python examples/train_pfenet_dcm.py --voc VOC2012 --network pfenet_resnet50 --weights imagenet --size 473
    python examples/train_pfenet_dcm.py --voc VOC2012 --network pfenet_resnet50 --backbone resnet50_deep_stem \\
      --published split0.pth --size 473 --train adapter  # released weights of PFENet, frozen

A trained host network is also tested before DCM is added, and both scores are printed.
"""

from _training import FROM_SCRATCH, make_data, make_host, parse_arguments, print_score, test, train
from lightning import seed_everything

from dpcn_modules import add_dcm
from dpcn_modules.training import FewShotTask

# The settings of PFENet's authors, for a frozen backbone; their schedule multiplies the learning rate by 10. The loss
# is the cross-entropy of the output plus the mean cross-entropy at the four sizes.
PUBLISHED = {"schedule": "sgd_poly", "lr": 2.5e-3, "lr_multiplier": 10.0, "auxiliary_weight": 1.0}

args = parse_arguments(__doc__, network="pfenet_small", host=True)
seed_everything(0, verbose=False)
data = make_data(args)
host = make_host(args)
before = test(FewShotTask(host), data) if args.published or args.host_checkpoint else None
add_dcm(host, train=args.train)  # until the adapter is trained, the logits are bit for bit the same as without it
task = FewShotTask(host, **(PUBLISHED if host.backbone.trainable == "none" else FROM_SCRATCH))
train(task, data, "runs/train_pfenet_dcm")
print_score(test(task, data), data, before=before)

"""Adapter DCM into PFENet, train it and test it: on generated shapes by default, on PASCAL-5i with a VOC folder.

    python examples/train_pfenet_dcm.py                        # both from scratch, seconds for 50 steps on the CPU
    python examples/train_pfenet_dcm.py --voc VOC2012 --network pfenet_resnet50 --weights imagenet --size 473
    python examples/train_pfenet_dcm.py --voc VOC2012 --network pfenet_resnet50 --backbone resnet50_deep_stem \\
      --published split0.pth --size 473 --train adapter           # a PFENet by its authors' code, left as it is

A host network that has learnt already is tested before, and its score stands beside that with DCM.
"""

from _training import FROM_SCRATCH, make_data, make_host, parse_arguments, print_score, test, train
from lightning import seed_everything

from dpcn_modules import add_dcm
from dpcn_modules.training import FewShotTask

# PFENet's, for a backbone that does not learn: a rate that its schedule multiplies by 10. To the cross-entropy of its
# output it adds the mean of those of its four sizes.
PUBLISHED = {"schedule": "sgd_poly", "lr": 2.5e-3, "lr_multiplier": 10.0, "auxiliary_weight": 1.0}

args = parse_arguments(__doc__, network="pfenet_small", host=True)
seed_everything(0, verbose=False)
data = make_data(args)
host = make_host(args)
before = test(FewShotTask(host), data) if args.published or args.host_checkpoint else None
add_dcm(host, train=args.train)  # until the adapter has learnt, the logits are bit for bit what they were
task = FewShotTask(host, **(PUBLISHED if host.backbone.trainable == "none" else FROM_SCRATCH))
train(task, data, "runs/train_pfenet_dcm")
print_score(test(task, data), data, before=before)

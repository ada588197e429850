"""Adapter DCM into CANet, train it and test it: on generated shapes by default, on PASCAL-5i with a VOC folder.

    python examples/train_canet_dcm.py                         # both from scratch, seconds for 50 steps on the CPU
    python examples/train_canet_dcm.py --voc VOC2012 --network canet_resnet50 --weights imagenet --size 321
    python examples/train_canet_dcm.py --host-checkpoint last.ckpt --train adapter  # a CANet by dpcn fit, left as it is

A host network that has learnt already is tested before, and its score stands beside that with DCM.
"""

from _training import FROM_SCRATCH, make_data, make_host, parse_arguments, print_score, test, train
from lightning import seed_everything

from dpcn_modules import add_dcm
from dpcn_modules.training import FewShotTask

# CANet's, for a backbone that does not learn. Its loss is the cross-entropy of its one output.
PUBLISHED = {"schedule": "sgd_constant", "lr": 2.5e-3, "weight_decay": 5e-4}

args = parse_arguments(__doc__, network="canet_small", host=True)
seed_everything(0, verbose=False)
data = make_data(args)
host = make_host(args)
before = test(FewShotTask(host), data) if args.published or args.host_checkpoint else None
add_dcm(host, train=args.train)  # until the adapter has learnt, the logits are bit for bit what they were
task = FewShotTask(host, **(PUBLISHED if host.backbone.trainable == "none" else FROM_SCRATCH))
train(task, data, "runs/train_canet_dcm")
print_score(test(task, data), data, before=before)

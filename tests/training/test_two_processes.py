"""Two processes have one process's episodes, intersections and unions, and its gradients."""

import json
import os
import subprocess
import sys

import pytest
from training.test_task import make_data

from dpcn_modules.training import EpisodeDataModule

SCRIPT = """
import json, sys, warnings
import torch
from lightning import Callback, seed_everything
from training.test_task import make_data, make_trainer
from dpcn_modules.models import build_model
from dpcn_modules.training import FewShotTask

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
devices, folder, device_batch = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
seed_everything(0, verbose=False)
model = build_model("baseline_small", classifier_dropout=0.0, query_to_support=False)
task = FewShotTask(model, schedule="sgd_constant", lr=0.1)
seen = {"train": [], "test": [], "batches": 0}

class Notes(Callback):
    def on_train_batch_start(self, trainer, task, batch, index):
        seen["train"].append([trainer.global_step, sorted(batch.query_name)])

    def on_test_batch_start(self, trainer, task, batch, *_):
        seen["batches"] += 1
        items = zip(batch.index.tolist(), batch.query_name, batch.support_names)
        seen["test"] += [names for index, *names in items if index >= 0]

strategy = "ddp" if devices > 1 else "auto"
options = {"devices": devices, "strategy": strategy}
trainer = make_trainer(folder, callbacks=[Notes()], **options)
data = make_data(device_batch_size=device_batch or None, episodes_per_epoch=11, val_episodes=5, test_episodes=5)
trainer.fit(task, data)
weight = task.model.decoder.conv.weight.detach().flatten()[:50].tolist()
task.model.decoder.classifier[-1].bias.data = torch.tensor([-0.5, 0.5])
trainer.test(task, data, verbose=False)
score = [task.test_score.miou.item(), task.test_score.fb_iou.item()]
result = {"seen": seen, "weight": weight, "score": score, "steps": trainer.global_step}
open(f"{folder}/{trainer.global_rank}.json", "w").write(json.dumps(result))
"""


def run(folder, devices, device_batch=0):
    """Train and test, and return what each rank saw."""
    folder.mkdir()
    (folder / "script.py").write_text(SCRIPT)
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([tests, *sys.path]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, folder / "script.py", str(devices), str(folder), str(device_batch)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(devices)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    return run(folder / "one", 1), run(folder / "two", 2), run(folder / "accumulated", 1, device_batch=2)


def test_two_processes_have_the_same_episodes_in_every_step(runs):
    (one,), (first, second), _ = runs
    together = [
        [step, sorted(a + b)] for (step, a), (_, b) in zip(first["seen"]["train"], second["seen"]["train"], strict=True)
    ]
    assert together == one["seen"]["train"]
    assert first["steps"] == one["steps"] == 4


def test_two_processes_have_the_same_test_and_the_same_score(runs):
    (one,), (first, second), _ = runs
    assert sorted(first["seen"]["test"] + second["seen"]["test"]) == sorted(one["seen"]["test"])
    assert len(one["seen"]["test"]) == 5
    assert first["seen"]["batches"] == second["seen"]["batches"] == 2
    assert first["score"] == second["score"]
    assert first["score"] == pytest.approx(one["score"], rel=1e-3)
    assert one["score"][0] > 0


def test_the_gradient_is_that_of_the_whole_batch_on_two_devices_or_accumulated(runs):
    (one,), (first, second), (accumulated,) = runs
    assert first["weight"] == second["weight"]
    assert first["weight"] == pytest.approx(one["weight"], rel=1e-3, abs=1e-5)
    assert accumulated["weight"] == pytest.approx(one["weight"], rel=1e-3, abs=1e-5)
    assert accumulated["steps"] == one["steps"]
    assert len(accumulated["seen"]["train"]) == 2 * len(one["seen"]["train"])


def test_a_part_of_a_batch_that_does_not_go_up_is_refused():
    with pytest.raises(ValueError, match=r"expected a divisor of the 4 episodes .* got 3"):
        make_data(device_batch_size=3).train_dataloader()


def test_a_batch_that_the_devices_cannot_share_is_refused():
    class Three:
        global_rank, world_size = 0, 3

    data: EpisodeDataModule = make_data()
    data.trainer = Three()
    with pytest.raises(ValueError, match="``batch_size``: expected a multiple of the 3 devices, got 4"):
        data.train_dataloader()

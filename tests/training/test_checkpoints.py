"""Checkpoints come back: of wrapped networks, of plain settings, whole files, and of whole steps."""

import enum
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import seed_everything
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from training.test_task import make_data, make_trainer

from dpcn_modules import add_dcm, build_model, load_model, remove_dcm
from dpcn_modules.models import settings_of, train_adapter_only
from dpcn_modules.training import FewShotTask

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about workers, loggers and resuming
RELIABILITY = Path(__file__).resolve().parents[2] / "benchmarks" / "reliability"


def compiled(model):
    return torch.compile(model, backend="eager")


def with_compiled_backbone(model):
    model.backbone = compiled(model.backbone)
    return model


WRAPPERS = {
    "plain": lambda model: model,
    "compiled": compiled,
    "compiled part": with_compiled_backbone,
    "data parallel": torch.nn.DataParallel,
    "compiled data parallel": lambda model: compiled(torch.nn.DataParallel(with_compiled_backbone(model))),
}


def save(task, path, data=None, **settings):
    trainer = make_trainer(path.parent, max_epochs=1, limit_train_batches=1, limit_val_batches=0, **settings)
    trainer.fit(task, data or make_data())
    trainer.save_checkpoint(path)
    return trainer


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapped_network_is_saved_and_comes_back_under_its_own_names(tmp_path, wrapper):
    model = build_model("dpcn_small", trainable="layer4")
    names = list(model.state_dict())
    task = FewShotTask(WRAPPERS[wrapper](model), backbone_start_epoch=1)
    save(task, tmp_path / "a.ckpt")
    loaded = load_model(tmp_path / "a.ckpt")
    assert list(loaded.state_dict()) == names
    for (name, ours), theirs in zip(loaded.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    assert [p.requires_grad for p in loaded.parameters()] == [p.requires_grad for p in model.parameters()]
    # layer4 waits inside a wrapper too
    start = build_model("dpcn_small")
    again = FewShotTask(WRAPPERS[wrapper](start.requires_grad_(True)))
    make_trainer(tmp_path).test(again, make_data(), ckpt_path=tmp_path / "a.ckpt", verbose=False)
    assert torch.equal(start.decoder.conv.weight, model.decoder.conv.weight)


def test_delayed_parameters_wait_inside_a_wrapper(tmp_path):
    model = build_model("dpcn_small", trainable="layer4")
    before = model.backbone.layer4.conv1[0].weight.clone()
    save(FewShotTask(torch.nn.DataParallel(model), backbone_start_epoch=1, lr=1.0), tmp_path / "a.ckpt")
    assert torch.equal(model.backbone.layer4.conv1[0].weight, before)


def test_averaged_weights_come_back(tmp_path):
    task = FewShotTask(build_model("dpcn_small"), lr=0.1)
    average = EMAWeightAveraging(decay=0.5)
    save(task, tmp_path / "a.ckpt", callbacks=[average])
    assert load_model(tmp_path / "a.ckpt").name == "dpcn_small"


class Generation(enum.StrEnum):
    PARALLEL = "parallel"


@pytest.mark.parametrize(
    "given",
    [
        {"kernel_size": np.int64(3)},
        {"classifier_dropout": np.float32(0.5)},
        {"sam": np.bool_(False)},
        {"generation": Generation.PARALLEL},
        {"rates": np.array([1, 2, 3])},
        {"windows": [np.array([3, 3])]},
        {"channels": torch.tensor(16)},
        {"backbone": np.str_("small")},
    ],
    ids=str,
)
def test_settings_are_plain_python_and_come_back(tmp_path, given):
    plain_types = (bool, int, float, str, tuple, type(None))
    model = build_model("dpcn_small", **given)
    assert all(type(value) in plain_types for value in vars(model.settings).values())
    save(FewShotTask(model), tmp_path / "a.ckpt")
    assert load_model(tmp_path / "a.ckpt").settings == model.settings


def test_a_path_of_weights_comes_back(tmp_path):
    torch.save(build_model("dpcn_small").backbone.state_dict(), tmp_path / "weights.pth")
    model = build_model("dpcn_small", weights=tmp_path / "weights.pth")
    assert model.settings == settings_of("dpcn_small", weights=str(tmp_path / "weights.pth"))
    save(FewShotTask(model), tmp_path / "a.ckpt")
    loaded = load_model(tmp_path / "a.ckpt")
    assert torch.equal(loaded.backbone.stem[0].weight, model.backbone.stem[0].weight)
    assert {name for name, p in loaded.named_parameters() if p.requires_grad} == {
        name for name, p in model.named_parameters() if p.requires_grad
    }


def test_weights_of_a_wrapped_backbone_are_read(tmp_path):
    backbone = build_model("dpcn_small").backbone
    torch.save(torch.nn.DataParallel(compiled(backbone)).state_dict(), tmp_path / "weights.pth")
    model = build_model("dpcn_small", weights=tmp_path / "weights.pth")
    assert torch.equal(model.backbone.stem[0].weight, backbone.stem[0].weight)


def test_numbers_of_numpy_in_task_and_data_come_back(tmp_path):
    rates = {"lr": np.float64(0.01), "momentum": np.float64(0.8), "lr_multipliers": {"backbone": np.float32(0.5)}}
    task = FewShotTask(build_model("dpcn_small"), weight_decay=np.float32(0), **rates)
    data = make_data(shot=np.int64(1), episodes_per_epoch=np.int64(8))
    data.size = np.int64(32)
    save(task, tmp_path / "a.ckpt", data)
    assert load_model(tmp_path / "a.ckpt").name == "dpcn_small"
    assert torch.load(tmp_path / "a.ckpt", weights_only=True)["size"] == 32


@pytest.mark.parametrize("added", [False, True])
def test_a_host_network_of_which_the_adapter_was_trained_comes_back_frozen(tmp_path, added):
    model = add_dcm(build_model("canet_small"), train="adapter") if added else build_model("canet_small_dcm")
    if not added:
        train_adapter_only(model)
    save(FewShotTask(model), tmp_path / "a.ckpt")
    loaded = load_model(tmp_path / "a.ckpt")
    trained = [name for name, p in loaded.named_parameters() if p.requires_grad]
    assert trained == [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert all(name.startswith("interaction.") for name in trained)
    assert loaded.backbone.frozen_norm
    remove_dcm(loaded)
    assert all(p.requires_grad for p in loaded.parameters())
    assert not loaded.backbone.frozen_norm


class NormedNet(torch.nn.Module):
    """Batch statistics change with every batch, also between two steps."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.BatchNorm2d(4))
        self.head = torch.nn.Sequential(torch.nn.Dropout(0.3), torch.nn.Conv2d(4, 2, 1))

    def forward(self, query_image, *_):
        from dpcn_modules.interface import Prediction

        return Prediction(self.head(self.layers(query_image)))


def test_a_checkpoint_from_between_two_steps_is_that_of_the_first(tmp_path):
    """Eight batches of two steps an epoch, saved after each batch: the gradients of a begun step are in none."""

    def fit(folder, **resume):
        seed_everything(0, verbose=False)
        task = FewShotTask(NormedNet(), lr=0.1)
        trainer = make_trainer(folder, callbacks=[EveryBatch(folder)])
        trainer.fit(task, make_data(episodes_per_epoch=9, device_batch_size=1), **resume)
        return task.model.state_dict(), dict(trainer.callback_metrics), trainer.global_step

    whole, metrics, steps = fit(tmp_path / "whole")
    assert steps == 4
    saved = sorted((tmp_path / "whole").glob("*.ckpt"))
    assert len(saved) == 16
    for path in saved:
        resumed, again, count = fit(tmp_path / path.stem, ckpt_path=path)
        assert count == steps, path
        assert all(torch.equal(whole[name], resumed[name]) for name in whole), path
        assert again == metrics or path is saved[-1], path  # nothing is left to train


class EveryBatch(Callback):
    """Saves a checkpoint after every batch."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        trainer.save_checkpoint(self.folder / f"{trainer.current_epoch}_{batch_idx}.ckpt")


def test_a_checkpoint_by_time_may_fall_between_two_steps(tmp_path):
    callback = ModelCheckpoint(
        tmp_path, filename="last", train_time_interval=timedelta(0), enable_version_counter=False
    )
    task = FewShotTask(build_model("baseline_small"))
    trainer = make_trainer(tmp_path, callbacks=[callback], enable_checkpointing=True, limit_val_batches=0, max_epochs=1)
    trainer.fit(task, make_data(device_batch_size=1))
    assert load_model(tmp_path / "last.ckpt").name == "baseline_small"


def test_a_resume_with_other_batches_inside_an_epoch_is_refused(tmp_path):
    fit = make_trainer(tmp_path, max_epochs=1, limit_val_batches=0, callbacks=[EveryBatch(tmp_path)])
    fit.fit(FewShotTask(build_model("baseline_small")), make_data(device_batch_size=2))
    trainer = make_trainer(tmp_path, max_epochs=1, limit_val_batches=0)
    with pytest.raises(ValueError, match=r"expected 2 episodes at a time .* inside an epoch, got 4"):
        trainer.fit(FewShotTask(build_model("baseline_small")), make_data(), ckpt_path=tmp_path / "0_1.ckpt")


@pytest.mark.parametrize("device_batch_size", [1, 2])
def test_a_device_batch_changes_neither_steps_nor_weights(tmp_path, device_batch_size):
    weights = []
    for size in (None, device_batch_size):
        seed_everything(0, verbose=False)
        model = build_model("baseline_small", classifier_dropout=0.0, query_to_support=False)
        trainer = make_trainer(tmp_path, max_epochs=1, limit_val_batches=0)
        trainer.fit(FewShotTask(model, lr=0.1), make_data(episodes_per_epoch=10, device_batch_size=size))
        assert trainer.global_step == 2
        weights.append(model.state_dict())
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-3, atol=1e-5, msg=name)


def test_a_training_with_fewer_episodes_than_a_batch_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one batch of 4 episodes, got 3"):
        make_trainer(tmp_path).fit(FewShotTask(build_model("baseline_small")), make_data(episodes_per_epoch=3))


def test_two_accumulations_are_refused(tmp_path):
    trainer = make_trainer(tmp_path, accumulate_grad_batches=3)
    with pytest.raises(ValueError, match="got accumulate_grad_batches=3, where 4 episodes a step are 2 batches"):
        trainer.fit(FewShotTask(build_model("baseline_small")), make_data(device_batch_size=2))


@pytest.mark.parametrize("name", ["batch_size", "device_batch_size", "test_batch_size", "val_episodes"])
def test_counts_below_one_are_refused_at_once(name):
    from dpcn_modules.data import Shapes
    from dpcn_modules.training import EpisodeDataModule

    with pytest.raises(ValueError, match=f"``{name}``: expected at least 1, got 0"):
        EpisodeDataModule(Shapes(0), **{name: 0})
    with pytest.raises(TypeError, match=f"``{name}``: expected a whole number, got 1.5"):
        EpisodeDataModule(Shapes(0), **{name: 1.5})


def test_a_training_by_time_needs_steps_for_a_schedule_that_falls(tmp_path):
    trainer = make_trainer(tmp_path, max_epochs=-1, max_time={"seconds": 1}, limit_val_batches=0)
    with pytest.raises(ValueError, match=r"known number of steps for 'sgd_poly'.*max_time.*'sgd_constant'"):
        trainer.fit(FewShotTask(build_model("baseline_small")), make_data())
    delayed = FewShotTask(build_model("dpcn_small", trainable="layer4"), schedule="sgd_constant")
    with pytest.raises(ValueError, match=r"``backbone_start_epoch``: .*0 trains all parameters from the start"):
        make_trainer(tmp_path, max_epochs=-1, max_time={"seconds": 1}).fit(delayed, make_data())
    task = FewShotTask(build_model("baseline_small"), schedule="sgd_constant")
    trainer = make_trainer(tmp_path, max_epochs=-1, max_time={"seconds": 1}, limit_val_batches=0)
    trainer.fit(task, make_data())
    assert trainer.global_step > 0


def test_a_quarter_of_a_training_by_steps_is_one_of_its_steps(tmp_path):
    """Without epochs, a quarter of -1 of them let layer4 learn at once."""
    task = FewShotTask(build_model("dpcn_small", trainable="layer4"))
    trainer = make_trainer(tmp_path, max_epochs=-1, max_steps=8, limit_val_batches=0)
    trainer.fit(task, make_data())  # two steps an epoch
    assert task._start_epoch() == 1


def test_a_checkpoint_is_never_half_written_where_temporary_files_are_elsewhere(tmp_path, monkeypatch):
    """Writing stops in the middle, as a full disk stops it; the old file stays, and no other is left."""
    task = FewShotTask(build_model("baseline_small"))
    trainer = save(task, tmp_path / "a.ckpt")
    before = (tmp_path / "a.ckpt").read_bytes()

    def half(content, path):
        Path(path).write_bytes(before[:1000])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dpcn_modules.training.checkpoints.torch.save", half)
    with pytest.raises(OSError, match="No space left"):
        trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert (tmp_path / "a.ckpt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["a.ckpt"]

"""Training from a feature store equals training through the frozen backbone, and uses no other features."""

import warnings

import pytest
import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from dpcn_modules.data import Shapes, TestTransform, TrainTransform, sample_episode
from dpcn_modules.data.episodes.stored_views import view_of
from dpcn_modules.data.feature_store import FeatureStore
from dpcn_modules.models import build_model
from dpcn_modules.models.stages import FrozenStages
from dpcn_modules.training import EpisodeDataModule, FewShotTask

AS_THEY_ARE = pytest.mark.parametrize(
    ("network", "overrides", "shot"),
    [
        ("dpcn_small", {"trainable": "none"}, 1),
        ("dpcn_small", {"trainable": "none"}, 2),
        ("dpcn_small", {"trainable": "layer4"}, 1),
        ("pfenet_small", {"trainable": "none"}, 2),
        ("canet_small_dcm", {"trainable": "none"}, 1),
        ("dpcn_resnet50", {"trainable": "none", "frozen_norm": True, "channels": 16}, 1),
    ],
)


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def make_data(features=None, *, transform=None, source=None, **settings):
    settings = {"episodes_per_epoch": 80, "batch_size": 4, "val_episodes": 2, "size": 33} | settings
    return EpisodeDataModule(
        source or Shapes(0, image_size=33, images_per_class=4),
        train_transform=transform or TestTransform(33),
        features=None if features is None else str(features),
        **settings,
    )


def make_model(network="dpcn_small", **overrides):
    torch.manual_seed(0)
    return build_model(network, **({"trainable": "none"} | overrides))


def write_store(folder, model, data, views=0, **options):
    encode = FrozenStages(model)
    store = FeatureStore(folder, {**data.store_key(), **encode.key(), "views": views}, write=True)
    return store, data.views(views).write(store, encode, **options)


class Losses(Callback):
    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        self.values.append(float(outputs["loss"]))


def fit(folder, model, data, *, callbacks=(), resume=None, lr=0.01, **settings):
    seed_everything(0, verbose=False)
    losses = Losses()
    settings = {"max_epochs": 1, "limit_val_batches": 0, "enable_checkpointing": bool(callbacks)} | settings
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        callbacks=[losses, *callbacks],
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **settings,
    )
    trainer.fit(FewShotTask(model, schedule="sgd_constant", lr=lr), data, ckpt_path=resume)
    return losses.values


def in_half_precision(model):
    """The same network with features of its frozen stages rounded to half precision."""
    backbone, middle = model.backbone, model.backbone._middle
    backbone._middle = lambda image: tuple(feat.half().float() for feat in middle(image))
    if backbone.trainable == "none":
        backbone._last_stage().register_forward_hook(lambda module, inputs, feat: feat.half().float())
    return model


@AS_THEY_ARE
def test_twenty_steps_equal_those_through_the_backbone(tmp_path, network, overrides, shot):
    steps, lr = (20, 1e-3) if "small" in network else (2, 1e-4)
    settings = {"shot": shot, "episodes_per_epoch": 4 * steps}
    write_store(tmp_path / "store", make_model(network, **overrides), make_data(**settings))
    stored = fit(tmp_path, make_model(network, **overrides), make_data(tmp_path / "store", **settings), lr=lr)
    through = fit(tmp_path, make_model(network, **overrides), make_data(**settings), lr=lr)
    rounded = fit(tmp_path, in_half_precision(make_model(network, **overrides)), make_data(**settings), lr=lr)
    assert len(stored) == steps
    assert stored[0] == pytest.approx(through[0], rel=2e-4)
    assert stored == pytest.approx(through, rel=5e-3)  # every step adds the rounding of the one before
    assert stored == pytest.approx(rounded, rel=5e-4)  # single features round the other way in a batch of another size
    assert max(through) - min(through) > 0.1


def test_the_backbone_is_not_run(tmp_path, monkeypatch):
    data = make_data(episodes_per_epoch=8)
    write_store(tmp_path / "store", make_model(), data)
    model = make_model()
    monkeypatch.setattr(model.backbone, "_middle", None)
    assert len(fit(tmp_path, model, make_data(tmp_path / "store", episodes_per_epoch=8))) == 2


def test_stored_episodes_show_the_same_images_and_masks(tmp_path):
    data = make_data(shot=2)
    model = make_model()
    write_store(tmp_path / "store", model, data)
    through = iter(data.train_dataloader())
    for _, stored, batch in zip(
        range(4), make_data(tmp_path / "store", shot=2).train_dataloader(), through, strict=False
    ):
        assert stored.query_name == batch.query_name
        assert stored.support_names == batch.support_names
        assert torch.equal(stored.query_mask, batch.query_mask)
        assert torch.equal(stored.support_masks, batch.support_masks)
        layer2, layer3, layer4 = model.backbone(batch.query_image)
        for got, expected in zip(stored.query_image[1:], (layer2, layer3, layer4), strict=True):
            torch.testing.assert_close(got.float(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("settings", [{"annotation": "box"}, {"sampling": "image"}])
def test_augmented_views_are_those_of_the_transform_and_vary_by_episode(tmp_path, settings):
    transform = TrainTransform(33)
    data, model = make_data(transform=transform, **settings), make_model()
    _, written = write_store(tmp_path / "store", model, data, views=2)
    assert written == len(FeatureStore(tmp_path / "store", {}))
    loader = make_data(tmp_path / "store", transform=transform, **settings).train_dataloader()
    dataset = loader.dataset
    shown = set()
    for item in range(12):
        episode = dataset[item]
        class_id, query, _ = dataset.spec(item)
        image, mask = dataset.source.load(query)
        target = (mask == class_id).byte()
        made = [view_of((TestTransform(33), transform), image, target, view) for view in range(3)]
        found = [view for view, (_, mask) in enumerate(made) if torch.equal(mask, episode.query_mask)]
        layer2 = [model.backbone(made[view][0].unsqueeze(0))[0][0] for view in found]
        assert any(torch.allclose(episode.query_image.layer2.float(), each, rtol=1e-3, atol=1e-3) for each in layer2)
        shown |= {found[0]} if len(found) == 1 else set()
        assert torch.equal(dataset[item].query_image.layer3, episode.query_image.layer3)
    assert shown == {0, 1, 2}


@pytest.mark.parametrize("shot", [1, 3])
def test_query_and_supports_are_different_images(tmp_path, shot):
    data = make_data(shot=shot)
    write_store(tmp_path / "store", make_model(), data, views=1)
    dataset = make_data(tmp_path / "store", shot=shot).train_dataloader().dataset
    for item in range(40):
        episode = dataset[item]
        assert len({episode.query_name, *episode.support_names}) == 1 + shot
        spec = sample_episode(dataset.source, shot=shot, seed=0, epoch=0, index=item)
        assert dataset.spec(item) == spec


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_training_is_the_uninterrupted_one(tmp_path, workers):
    data = {"transform": TrainTransform(33), "episodes_per_epoch": 24, "workers": workers}
    write_store(tmp_path / "store", make_model(), make_data(**data), views=2)
    whole = fit(tmp_path, make_model(), make_data(tmp_path / "store", **data))
    save = ModelCheckpoint(tmp_path, filename="middle", every_n_train_steps=3, save_top_k=-1)
    fit(tmp_path, make_model(), make_data(tmp_path / "store", **data), callbacks=[save], max_steps=3, max_epochs=-1)
    torch.manual_seed(1)
    other = build_model("dpcn_small", trainable="none")  # of other weights, until the checkpoint is loaded
    rest = fit(tmp_path, other, make_data(tmp_path / "store", **data), resume=tmp_path / "middle.ckpt")
    assert rest == whole[3:]


def test_an_interrupted_store_is_refused_and_then_completed(tmp_path, monkeypatch):
    monkeypatch.setattr("dpcn_modules.data.episodes.stored_views.PART_BYTES", 1)
    data, model = make_data(), make_model()

    def stop(images):
        yield from images[: len(images) // 2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_store(tmp_path / "store", model, data, progress=stop)
    with pytest.raises(ValueError, match="not complete, or of other images; run `dpcn features`"):
        make_data(tmp_path / "store").train_dataloader()
    half = len(FeatureStore(tmp_path / "store", {}))
    store, written = write_store(tmp_path / "store", model, data)
    assert half > 0 < written
    assert len(store) == half + written
    assert write_store(tmp_path / "store", model, data)[1] == 0
    make_data(tmp_path / "store").train_dataloader()


class Changed:
    """Training images of which a pixel is another one than when the store was made."""

    def __init__(self, source, what):
        self.source, self.what = source, what

    def split(self, name):
        images, load = self.source.split(name), self.source.split(name).load

        def changed(image_id):
            image, mask = (each.clone() for each in load(image_id))
            if self.what == "image":
                image[0, 0, 0] ^= 1
            else:
                mask[tuple(mask.nonzero()[0])] = 0
            return image, mask

        images.load = changed
        return images


@pytest.mark.parametrize("what", ["image", "mask"])
def test_a_changed_image_or_mask_is_refused_and_can_be_added(tmp_path, what):
    write_store(tmp_path / "store", make_model(), make_data())
    source = Changed(Shapes(0, image_size=33, images_per_class=4), what)
    with pytest.raises(ValueError, match=r"does not hold view 0 of .* the files have changed"):
        fit(tmp_path, make_model(), make_data(tmp_path / "store", source=source))
    write_store(tmp_path / "store", make_model(), make_data(source=source))
    assert len(fit(tmp_path, make_model(), make_data(tmp_path / "store", source=source))) == 20


def test_features_of_other_weights_are_refused(tmp_path):
    write_store(tmp_path / "store", make_model(), make_data())
    torch.manual_seed(1)
    with pytest.raises(ValueError, match="features of another weights"):
        fit(tmp_path, build_model("dpcn_small", trainable="none"), make_data(tmp_path / "store"))


@pytest.mark.parametrize(
    ("settings", "differs"),
    [
        ({"size": 41}, "size"),
        ({"transform": TrainTransform(33)}, "augmentation"),
        ({"mask_interpolation": "nearest"}, "mask_interpolation"),
    ],
)
def test_features_of_other_views_are_refused(tmp_path, settings, differs):
    write_store(tmp_path / "store", make_model(), make_data())
    with pytest.raises(ValueError, match=f"features of another {differs}"):
        make_data(tmp_path / "store", **settings).train_dataloader()


def test_features_of_another_version_are_refused(tmp_path, monkeypatch):
    write_store(tmp_path / "store", make_model(), make_data())
    monkeypatch.setattr("dpcn_modules.training.datamodule.__version__", "9.9")
    with pytest.raises(ValueError, match=r"features of another version: expected '9.9'"):
        make_data(tmp_path / "store").train_dataloader()


@pytest.mark.parametrize(
    ("network", "overrides", "message"),
    [
        ("dpcn_small", {"trainable": "all"}, "got trainable='all'; set overrides.trainable"),
        ("dpcn_resnet50", {"trainable": "none", "frozen_norm": False}, "got frozen_norm=False; set overrides"),
    ],
)
def test_a_network_whose_stages_change_is_refused_before_it_trains(tmp_path, network, overrides, message):
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, build_model(network, **overrides), make_data(tmp_path / "store"))


def test_a_network_that_takes_no_stages_is_refused():
    with pytest.raises(TypeError, match="expected a network of dpcn_modules"):
        FrozenStages(torch.nn.Conv2d(3, 2, 1))


def test_room_is_checked_before_anything_is_written(tmp_path, monkeypatch):
    data, store = make_data(), FeatureStore(tmp_path / "store", {}, write=True)
    views = data.views(0)
    stages = [each.shape[1:] for each in FrozenStages(make_model())(views.first()[0].unsqueeze(0))]
    needed = views.check_room(store, stages, 33, None)
    with pytest.raises(ValueError, match=f"``--budget``: expected at least {needed} bytes.*Nothing was written"):
        views.check_room(store, stages, 33, needed - 1)
    usage = type("Usage", (), {"free": needed - 1})
    monkeypatch.setattr("dpcn_modules.data.episodes.stored_views.shutil.disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=f"expected {needed} bytes of free space, got {needed - 1}"):
        views.check_room(store, stages, 33, None)
    views.write(store, FrozenStages(make_model()))
    assert sum(file.stat().st_size for end in ("features", "masks") for file in store.path.glob(f"*.{end}")) <= needed

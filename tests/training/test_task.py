"""The task under Lightning: schedules, delayed parameters, checkpoints, resume, a loss that breaks, fusion of shots."""

import copy
import warnings

import pytest
import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from dpcn_modules.data import Shapes, TestTransform, manifest_lines
from dpcn_modules.evaluation import EpisodeIoU, logits_at_original_size
from dpcn_modules.interface import ImageFeatures, Prediction
from dpcn_modules.models import build_model, fuse_shots, load_model
from dpcn_modules.training import EpisodeDataModule, FewShotTask


def make_data(image_size=32, **settings):
    settings = {"episodes_per_epoch": 8, "val_episodes": 4, "test_episodes": 6} | settings
    return EpisodeDataModule(
        Shapes(0, image_size=image_size),
        size=32,
        batch_size=4,
        test_batch_size=2,
        train_transform=TestTransform(32),
        **settings,
    )


def make_trainer(folder, **settings):
    settings = {"max_epochs": 2, "logger": False, "enable_checkpointing": False} | settings
    return Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **settings,
    )


@pytest.fixture(autouse=True)
def _quiet():
    """Lightning advises more workers and says what it found; neither is a fault."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*logger.*configured.*|.*exists and is not empty.*")
        warnings.filterwarnings("ignore", message=".*isinstance.*LeafSpec.*")
        warnings.filterwarnings("ignore", message="The dirpath has changed.*")
        warnings.filterwarnings("ignore", message=".*dataloader is not resumable.*")
        yield


class Rates(Callback):
    """Notes the learning rate of every step, of the group of parameters asked for."""

    def __init__(self, group=0):
        self.group = group
        self.rates = []

    def on_train_batch_start(self, trainer, *_):
        self.rates.append(trainer.optimizers[0].param_groups[self.group]["lr"])


def test_the_poly_schedule_falls_every_step(tmp_path):
    rates = Rates()
    task = FewShotTask(build_model("baseline_small"), lr=0.01, lr_multiplier=10)
    trainer = make_trainer(tmp_path, callbacks=[rates], limit_val_batches=0)
    trainer.fit(task, make_data())
    torch.testing.assert_close(rates.rates, [0.1 * (1 - step / 4) ** 0.9 for step in range(4)])
    assert len(trainer.optimizers[0].param_groups) == 1


def test_one_cycle_rises_and_falls(tmp_path):
    rates = Rates()
    task = FewShotTask(build_model("baseline_small"), schedule="adamw_one_cycle", lr=0.01)
    make_trainer(tmp_path, callbacks=[rates], limit_val_batches=0, max_epochs=5).fit(task, make_data())
    assert max(rates.rates) == pytest.approx(0.01, rel=0.05)
    assert rates.rates[0] < 0.001 > rates.rates[-1]


def test_the_step_schedule_falls_twice_with_a_part_at_its_own_rate(tmp_path):
    others, backbone = Rates(0), Rates(1)
    task = FewShotTask(
        build_model("baseline_small"), schedule="sgd_step", lr=0.01, lr_multiplier=2, lr_multipliers={"backbone": 0.1}
    )
    trainer = make_trainer(tmp_path, callbacks=[others, backbone], limit_val_batches=0, max_epochs=3)
    trainer.fit(task, make_data())
    torch.testing.assert_close(others.rates, [0.02, 0.02, 0.002, 0.002, 0.0002, 0.0002])
    torch.testing.assert_close(backbone.rates, [rate / 10 for rate in others.rates])


def test_an_unknown_schedule_is_named():
    with pytest.raises(
        ValueError, match="expected one of sgd_poly, sgd_constant, sgd_step, adamw_one_cycle, got 'adam'"
    ):
        FewShotTask(build_model("baseline_small"), schedule="adam")


def test_a_multiplier_of_a_part_that_is_not_there_is_refused_at_once():
    with pytest.raises(ValueError, match=r"got 'interaction'; the network's are backbone, reduction, decoder"):
        FewShotTask(build_model("baseline_small"), lr_multipliers={"interaction": 10.0})


def test_layer4_starts_late_and_frozen_stages_never(tmp_path):
    model = build_model("dpcn_small", trainable="layer4")
    start = copy.deepcopy(model.state_dict())
    seen = []

    class Notes(Callback):
        def on_train_epoch_end(self, trainer, task):
            seen.append(copy.deepcopy(task.model.state_dict()))

    task = FewShotTask(model, lr=0.1, backbone_start_epoch=1)
    make_trainer(tmp_path, callbacks=[Notes()], limit_val_batches=0).fit(task, make_data())
    changed = [{name for name in start if not torch.equal(start[name], state[name])} for state in seen]
    layer4 = {name for name in start if name.startswith("backbone.layer4")}
    assert not any(name.startswith("backbone") for name in changed[0])
    assert {name for name in changed[1] if name.startswith("backbone")} == layer4
    assert "decoder.conv.weight" in changed[0]


def test_by_default_layer4_waits_a_quarter_of_the_epochs(tmp_path):
    task = FewShotTask(build_model("baseline_small"))
    make_trainer(tmp_path, max_epochs=9, limit_train_batches=1, limit_val_batches=0).fit(task, make_data())
    assert task._start_epoch() == 2


def test_a_loss_that_is_not_finite_stops_with_the_way_out(tmp_path):
    task = FewShotTask(build_model("baseline_small"), lr=0.01)
    torch.nn.init.constant_(task.model.decoder.classifier[-1].bias, float("inf"))
    with pytest.raises(FloatingPointError, match=r"epoch 0, step 0 .*lower model.lr.*--ckpt_path"):
        make_trainer(tmp_path).fit(task, make_data())


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_training_runs_in_both_precisions(tmp_path, precision):
    task = FewShotTask(build_model("dpcn_small"), schedule="adamw_one_cycle", lr=1e-3)
    trainer = make_trainer(tmp_path, precision=precision, max_epochs=1)
    trainer.fit(task, make_data())
    trainer.test(task, make_data(), verbose=False)
    assert 0 <= task.test_score.miou <= 1


def test_the_memory_layout_changes_the_features_layout_and_not_the_training(tmp_path):
    weights = []
    for channels_last in (False, True):
        seed_everything(0, verbose=False)
        task = FewShotTask(build_model("dpcn_small"), channels_last=channels_last)
        make_trainer(tmp_path, max_epochs=1).fit(task, make_data())
        feature = task.model.backbone(torch.zeros(2, 3, 32, 32))[0]
        assert feature.is_contiguous(memory_format=torch.channels_last) == channels_last
        weights.append(task.model.state_dict())
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-3, atol=1e-4, msg=name)


def test_a_checkpoint_builds_its_network_again(tmp_path):
    task = FewShotTask(build_model("dpcn_small", kernel_size=3), schedule="sgd_step", lr_multipliers={"backbone": 0.1})
    checkpoint = ModelCheckpoint(tmp_path, filename="last", enable_version_counter=False)
    make_trainer(tmp_path, callbacks=[checkpoint], enable_checkpointing=True).fit(task, make_data())
    loaded = load_model(tmp_path / "last.ckpt")
    assert (loaded.name, loaded.settings.kernel_size) == ("dpcn_small", 3)
    assert torch.equal(loaded.decoder.conv.weight, task.model.decoder.conv.weight)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_resumed_at_any_step_ends_where_the_whole_one_does(tmp_path, workers):
    """With dropout and CANet's dropped history, inside an epoch and at its end."""

    def fit(folder, **resume):
        seed_everything(0, verbose=False)
        task = FewShotTask(build_model("canet_small", channels=8, dropout=0.5), lr=0.01)
        checkpoint = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = make_trainer(folder, callbacks=[checkpoint], enable_checkpointing=True)
        trainer.fit(task, make_data(episodes_per_epoch=12, workers=workers), **resume)
        return task.model.state_dict(), trainer.callback_metrics

    whole, metrics = fit(tmp_path / "whole")
    for step in (1, 3, 5) if workers == 0 else (2, 3):
        resumed, again = fit(tmp_path / f"{step}", ckpt_path=tmp_path / "whole" / f"step={step}.ckpt")
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)
        assert {name: again[name] for name in metrics} == dict(metrics)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """One network and its test score with 0, 1 and 2 workers."""
    torch.manual_seed(0)
    task = FewShotTask(build_model("dpcn_small"))
    task.model.decoder.classifier[-1].bias.data = torch.tensor([-0.1, 0.1])
    scores = []
    for workers in (0, 1, 2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            make_trainer(tmp_path_factory.mktemp("runs")).test(task, make_data(workers=workers), verbose=False)
        scores.append(task.test_score)
    return scores


def test_the_score_does_not_depend_on_the_workers(scored):
    assert scored[0].miou > 0
    assert scored[0] == scored[1] == scored[2]


def test_a_test_after_training_has_the_same_episodes_as_one_alone(tmp_path):
    """Lightning tells samplers the epoch; the episodes of a test must not follow it."""
    data, names = make_data(), []

    class Notes(Callback):
        def on_test_batch_start(self, trainer, task, batch, *_):
            names.append((batch.query_name, batch.support_names))

    task = FewShotTask(build_model("baseline_small"))
    make_trainer(tmp_path, callbacks=[Notes()]).test(task, make_data(), verbose=False)
    trainer = make_trainer(tmp_path, callbacks=[Notes()])
    trainer.fit(task, data)
    trainer.test(task, data, verbose=False)
    assert len(names) == 6
    assert names[:3] == names[3:]


def score_of(task, folder, **settings):
    """The score of a test with images that are larger than what the network sees."""
    make_trainer(folder).test(task, make_data(image_size=40, **settings), verbose=False)
    return task.test_score


@pytest.fixture
def eager_model():
    """A network that finds some foreground, not the same by each shot."""
    torch.manual_seed(0)
    model = build_model("dpcn_small")
    model.decoder.classifier[-1].bias.data = torch.tensor([-0.1, 0.1])
    return model


class BrighterThanTheQuery(torch.nn.Module):
    """Foreground is where a support is brighter than the query: masks as ragged as the images."""

    def encode_image(self, image):
        return ImageFeatures(image, image)

    def encode_support(self, support, support_masks):
        return support.mid.mean((1, 2))

    def decode(self, query, support, size):
        return Prediction(torch.stack([query.mid.mean(1), support], dim=1))


@pytest.mark.parametrize("fusion", ["vote", "average", "or"])
def test_masks_are_fused_at_the_images_size(tmp_path, fusion):
    score = score_of(FewShotTask(BrighterThanTheQuery(), fusion=fusion), tmp_path, shot=3)
    expected = EpisodeIoU()
    for batch in make_data(image_size=40, shot=3).test_dataloader():
        for i, size in enumerate(batch.query_size.tolist()):
            query, supports = batch.query_image[i].mean(0), batch.support_images[i].mean(1)
            shots = [logits_at_original_size(torch.stack([query, support]), size) for support in supports]
            target = batch.query_mask[i, : size[0], : size[1]]
            expected.update(fuse_shots(torch.stack(shots), fusion)[None], target[None], batch.class_id[i : i + 1])
    assert 0 < score.miou < 1
    assert score == expected.compute()


def test_the_fusions_of_one_shot_score_as_the_networks_own_forward(tmp_path, eager_model):
    scores = [score_of(FewShotTask(eager_model, fusion=f), tmp_path) for f in ("concat", "vote", "average", "or")]
    assert scores[0].miou > 0
    assert scores[0] == scores[1] == scores[2] == scores[3]


def test_the_fusions_of_several_shots_score_differently(tmp_path, eager_model):
    scores = [
        score_of(FewShotTask(eager_model, fusion=f), tmp_path, shot=4) for f in ("concat", "vote", "average", "or")
    ]
    assert len({float(score.miou) for score in scores}) == 4


def test_validation_is_fused_and_training_is_not(tmp_path, eager_model):
    shots = []

    def note(module, arguments):
        shots.append(("forward", arguments[1].shape[1]))

    eager_model.register_forward_pre_hook(note)
    encode = eager_model.encode_support
    eager_model.encode_support = lambda support, masks: (
        shots.append(("encoded", masks.shape[1])) or encode(support, masks)
    )
    task = FewShotTask(eager_model, fusion="vote")
    trainer = make_trainer(tmp_path, max_epochs=1, limit_train_batches=1, limit_val_batches=1)
    trainer.fit(task, make_data(shot=2))
    # Training gives the forward two shots at once; the fusion in validation encodes each of two alone.
    assert shots == [("forward", 2), ("encoded", 1), ("encoded", 1)]


def test_an_unknown_fusion_is_named():
    with pytest.raises(ValueError, match="expected one of concat, vote, average, or, got 'mean'"):
        FewShotTask(build_model("baseline_small"), fusion="mean")


def test_a_fusion_of_a_network_without_the_encode_decode_api_is_refused_at_once():
    with pytest.raises(TypeError, match="got Linear without encode_image, encode_support, decode"):
        FewShotTask(torch.nn.Linear(1, 1), fusion="vote")
    assert FewShotTask(torch.nn.Linear(1, 1)).fusion == "concat"


def test_a_test_at_several_scales_averages_the_probabilities(tmp_path, eager_model):
    score = score_of(FewShotTask(eager_model), tmp_path, scales=[48])
    expected = EpisodeIoU()
    for batch in make_data(image_size=40, scales=[48]).test_dataloader():
        (view,) = batch.views
        with torch.no_grad():
            small, large = eager_model.eval()(*batch[:1], *batch[2:4]).logits, eager_model(*view).logits
        for i, size in enumerate(batch.query_size.tolist()):
            views = [logits_at_original_size(logits[i], size).softmax(0) for logits in (small, large)]
            target = batch.query_mask[i, : size[0], : size[1]]
            expected.update(((views[0] + views[1]) / 2).argmax(0)[None], target[None], batch.class_id[i : i + 1])
    assert score == expected.compute()
    assert score != score_of(FewShotTask(eager_model), tmp_path)


def test_a_resized_truth_is_the_mask_on_the_square(tmp_path, eager_model):
    score = score_of(FewShotTask(eager_model), tmp_path, target="resized")
    expected = EpisodeIoU()
    for batch in make_data(image_size=40, target="resized").test_dataloader():
        assert batch.query_mask.shape == (2, 32, 32)
        with torch.no_grad():
            predicted = eager_model.eval()(*batch[:1], *batch[2:4]).logits.argmax(1)
        expected.update(predicted, batch.query_mask, batch.class_id)
    assert score == expected.compute()
    assert score != score_of(FewShotTask(eager_model), tmp_path)


def test_a_replayed_manifest_gives_the_same_number_whatever_the_seed(tmp_path, eager_model):
    drawn, path = make_data(image_size=40), tmp_path / "episodes.jsonl"
    path.write_text("\n".join(manifest_lines(drawn.test_dataset())))
    replayed = {"manifest": str(path), "test_seed": 5, "test_episodes": 1}
    assert score_of(FewShotTask(eager_model), tmp_path, **replayed) == score_of(FewShotTask(eager_model), tmp_path)
    protocol = make_data(image_size=40, **replayed).protocol()
    assert protocol.episodes == 6
    assert "manifest" in str(protocol)


def test_an_unknown_truth_is_named():
    with pytest.raises(ValueError, match="``target``: expected one of original, resized, got 'small'"):
        make_data(target="small")


@pytest.fixture
def encoded(eager_model):
    """How many images the network has encoded, batch by batch."""
    counts, encode = [], eager_model._encode_image

    def counting(image, **options):
        counts.append(image.shape[:-3].numel())
        return encode(image, **options)

    eager_model._encode_image = counting
    return counts


def few_images(**settings):
    """Episodes of so few images that each of them is seen in several."""
    data = make_data(**{"scales": [48]} | settings)
    data.source = Shapes(0, image_size=40, images_per_class=data.shot + 1)
    return data


def images_of(data):
    specs = [data.test_dataset().spec(index) for index in range(data.test_episodes)]
    return {image for spec in specs for image in (spec.query, *spec.supports)}


@pytest.mark.parametrize(("fusion", "shot"), [("concat", 1), ("concat", 5), ("vote", 5), ("average", 5), ("or", 5)])
def test_the_feature_cache_does_not_change_the_score(tmp_path, eager_model, encoded, fusion, shot):
    scores, counts, reports = [], [], []
    for budget in (0, "1GB", "100KB"):
        encoded.clear()
        task = FewShotTask(eager_model, fusion=fusion, feature_cache=budget)
        make_trainer(tmp_path).test(task, few_images(shot=shot), verbose=False)
        scores.append(task.test_score)
        counts.append(sum(encoded))
        reports.append(task.feature_cache_report)
    assert scores[0].miou > 0
    assert scores[0] == scores[1] == scores[2]
    assert counts[0] == 2 * 6 * (1 + shot)
    assert counts[1] == 2 * len(images_of(few_images(shot=shot))) < counts[2] < counts[0]
    assert reports[0] is None
    assert f"{counts[1]} images encoded, {counts[0] - counts[1]} taken from it" in reports[1]
    assert "would have held all" not in reports[1]
    assert f"would have held all {counts[1]}" in reports[2]


@pytest.mark.parametrize("name", ["panet_small", "canet_small", "pfenet_small"])
def test_the_other_networks_score_the_same_with_the_feature_cache(tmp_path, name):
    torch.manual_seed(0)
    model, scores = build_model(name), []
    if name == "pfenet_small":
        model.classifier[-1].bias.data = torch.tensor([-2.5, 2.5])
    for budget in (0, "1GB"):
        task = FewShotTask(model, feature_cache=budget)
        make_trainer(tmp_path).test(task, few_images(test_episodes=4, scales=[]), verbose=False)
        scores.append(task.test_score)
    assert scores[0].miou > 0
    torch.testing.assert_close(scores[0].miou, scores[1].miou, rtol=0, atol=1e-6)
    torch.testing.assert_close(scores[0].class_iou, scores[1].class_iou, rtol=0, atol=1e-6)


def test_a_second_test_uses_no_feature_of_other_weights(tmp_path, eager_model, encoded):
    task, data = FewShotTask(eager_model, feature_cache="1GB"), few_images()
    trainer = make_trainer(tmp_path)
    trainer.test(task, data, verbose=False)
    first = task.test_score
    assert (len(task.feature_cache), task.feature_cache.bytes) == (0, 0)
    torch.manual_seed(9)
    for parameter in eager_model.backbone.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    trainer.test(task, data, verbose=False)
    fresh = FewShotTask(eager_model)
    trainer.test(fresh, data, verbose=False)
    assert first != task.test_score == fresh.test_score


def test_a_test_that_was_cut_off_leaves_nothing_to_the_next(tmp_path, eager_model, encoded):
    task, data = FewShotTask(eager_model, feature_cache="1GB"), few_images()

    class Stop(Callback):
        def on_test_batch_end(self, *_):
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        make_trainer(tmp_path, callbacks=[Stop()]).test(task, data, verbose=False)
    encoded.clear()
    make_trainer(tmp_path).test(task, data, verbose=False)
    assert sum(encoded) == 2 * len(images_of(data))


def test_every_validation_encodes_anew_and_scores_the_same(tmp_path, eager_model):
    start, scores = copy.deepcopy(eager_model.state_dict()), []
    for cache in (0, "1GB"):
        eager_model.load_state_dict(start)
        held = []

        class Notes(Callback):
            def on_validation_epoch_start(self, trainer, task, held=held):
                held.append(task.feature_cache.bytes if task.feature_cache is not None else 0)

            def on_validation_batch_end(self, trainer, task, *_, held=held):
                held.append(task.feature_cache.bytes if task.feature_cache is not None else 0)

            def on_train_epoch_end(self, trainer, task):
                scores.append(float(trainer.callback_metrics["val/miou"]))

        seed_everything(0, verbose=False)
        task = FewShotTask(eager_model, schedule="sgd_constant", lr=3e-4, feature_cache=cache)
        make_trainer(tmp_path, callbacks=[Notes()]).fit(task, make_data(image_size=40, shot=2))
    assert scores[:2] == pytest.approx(scores[2:], abs=1e-6)
    assert 0 < scores[0] != scores[1] > 0
    assert held[0] == held[3] == 0 < held[1] < held[2]
    assert task.feature_cache.bytes == 0


def test_a_feature_cache_that_is_off_is_none_and_leaves_the_forward_to_the_network(tmp_path, eager_model):
    seen = []
    eager_model.register_forward_pre_hook(lambda *_: seen.append(1))
    for cache, calls in ((0, 3), ("0GB", 6), ("1MB", 6)):
        task = FewShotTask(eager_model, feature_cache=cache)
        score_of(task, tmp_path)
        assert len(seen) == calls
        assert (task.feature_cache is None) == (task.feature_cache_report is None) == (cache != "1MB")


def test_a_feature_cache_of_a_network_without_doors_is_refused_at_once():
    with pytest.raises(TypeError, match=r"got Linear without encode_image, .* or use feature_cache=0"):
        FewShotTask(torch.nn.Linear(1, 1), feature_cache="4GB")
    assert FewShotTask(torch.nn.Linear(1, 1), feature_cache="0").feature_cache is None


def test_a_feature_cache_of_no_amount_is_refused_at_once():
    with pytest.raises(ValueError, match=r"``feature_cache``: expected 0 or more bytes, .* got '4 parsecs'"):
        FewShotTask(build_model("baseline_small"), feature_cache="4 parsecs")


NETWORKS = ["panet_small", "canet_small", "canet_small_dcm", "pfenet_small", "pfenet_small_dcm", "dpcn_small"]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_learns_from_boxes_and_is_scored_by_fused_shots(tmp_path, name):
    torch.manual_seed(0)
    task = FewShotTask(build_model(name), schedule="adamw_one_cycle", lr=1e-3, fusion="average")
    data, seen = make_data(shot=2, annotation="box", image_size=48), []

    class Losses(Callback):
        def on_train_epoch_end(self, trainer, task):
            seen.append({key for key in trainer.callback_metrics if key.startswith("train/")})

    trainer = make_trainer(tmp_path, max_epochs=1, callbacks=[Losses()], limit_val_batches=0)
    trainer.fit(task, data)
    trainer.test(task, data, verbose=False)
    assert 0 <= task.test_score.miou <= 1
    assert "annotated by box" in str(data.protocol())
    second = {"pfenet": {"train/auxiliary"}, "canet": set()}.get(name.split("_")[0], {"train/support"})
    assert {key for key in seen[0] if not key.startswith("train/loss")} == {"train/query"} | second

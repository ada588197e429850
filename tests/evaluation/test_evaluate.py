"""`evaluate`: the same score as Lightning's test, by batch size, workers, fusion and cache, without Lightning."""

import subprocess
import sys

import pytest
import torch
from lightning import Trainer

from dpcn_modules import build_model
from dpcn_modules.data import EpisodeDataset, Shapes, TestTransform, collate_episodes
from dpcn_modules.evaluation import EpisodeIoU, evaluate, predicted_mask
from dpcn_modules.training import EpisodeDataModule, FewShotTask

SOURCE = Shapes(0, image_size=40, images_per_class=6)


def episodes(shot=1, count=6):
    return EpisodeDataset(
        SOURCE.split("test"), shot=shot, episodes=count, seed=0, transform=TestTransform(32), original_query_mask=True
    )


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model("dpcn_small")


def test_the_score_is_that_of_the_plain_loop(model):
    score = evaluate(model, episodes(), progress=False)
    expected = EpisodeIoU()
    model.eval()
    for episode in episodes():
        batch = collate_episodes([episode])
        with torch.no_grad():
            logits = model(batch.query_image, batch.support_images, batch.support_masks).logits
        mask = predicted_mask(torch.nn.functional.interpolate(logits, (40, 40), mode="bilinear"))
        expected.update(mask, batch.query_mask, batch.class_id)
    assert score == expected.compute()
    assert set(score.class_iou) <= set(SOURCE.split("test").class_names)


@pytest.mark.filterwarnings("ignore")  # Lightning's advice about workers and loggers
@pytest.mark.parametrize(("shot", "fusion"), [(1, "concat"), (3, "concat"), (3, "vote")])
def test_the_score_is_that_of_the_lightning_test(model, tmp_path, shot, fusion):
    data = EpisodeDataModule(SOURCE, shot=shot, size=32, test_episodes=6)
    task = FewShotTask(model, fusion=fusion)
    trainer = Trainer(
        default_root_dir=tmp_path,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.test(task, data, verbose=False)
    assert evaluate(model, data.test_dataset(), fusion=fusion, progress=False) == task.test_score


def test_batches_workers_and_cache_change_nothing(model):
    model.double()  # in single precision, a batch may round the last bit otherwise
    doubled = [
        each._replace(query_image=each.query_image.double(), support_images=each.support_images.double())
        for each in episodes()
    ]
    first = evaluate(model, doubled, progress=False)
    for options in ({"batch_size": 4}, {"workers": 1}, {"feature_cache": "1GB", "batch_size": 3}):
        assert evaluate(model, doubled, progress=False, **options) == first


@pytest.mark.parametrize("training", [True, False])
def test_the_network_gets_its_mode_back(model, training):
    evaluate(model.train(training), episodes(count=1), progress=False)
    assert model.training is training
    with pytest.raises(ValueError, match="``support_masks``"):
        evaluate(model, [next(iter(episodes()))._replace(support_masks=torch.full((1, 32, 32), 9))], progress=False)
    assert model.training is training


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "``batch_size``: expected at least 1, got 0"),
        ({"fusion": "votes"}, ValueError, "Did you mean 'vote'"),
        ({"feature_cache": "much"}, ValueError, "``feature_cache``"),
    ],
)
def test_wrong_options_are_named(model, options, error, message):
    with pytest.raises(error, match=message):
        evaluate(model, episodes(), **options)


def test_it_needs_no_lightning():
    code = (
        "import sys; sys.modules['lightning'] = None\n"
        "from dpcn_modules.evaluation import evaluate, Predictor; print(evaluate.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "evaluate", done.stderr

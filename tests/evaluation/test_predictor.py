"""The path from images to masks: each shot alone or all together, compiled, cached, and with hooks on every part."""

import copy
from collections import Counter

import pytest
import torch
from episode_helpers import episodes_of
from models.base import episode_batch

from dpcn_modules import FewShotSegmenter, build_model
from dpcn_modules.data import Shapes, TestTransform, View, collate_episodes
from dpcn_modules.evaluation import FeatureCache, Predictor, predicted_mask
from dpcn_modules.training import FewShotTask

NETWORKS = ["dpcn_small", "baseline_small", "pfenet_small_dcm", "canet_small_dcm", "panet_small"]


def each_shot(model, view, fusion="vote"):
    """Logits ``(B, K, 2, S, S)``."""
    return torch.stack([each.logits for each in Predictor(model, fusion=fusion).predict(View(*view))], 1)


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_one_shot_predictions_are_the_forward_on_each_shot_alone(name):
    torch.manual_seed(0)
    model = build_model(name).eval()
    query_image, support_images, support_masks = episode_batch(2, 3)
    support_masks = torch.stack([support_masks[:, k].roll(8 * k, dims=-2) for k in range(3)], dim=1)
    logits = each_shot(model, (query_image, support_images, support_masks))
    assert logits.shape == (2, 3, 2, *query_image.shape[-2:])
    for k in range(3):
        alone = model(query_image, support_images[:, k : k + 1], support_masks[:, k : k + 1]).logits
        torch.testing.assert_close(logits[:, k], alone)
    assert not torch.allclose(logits[:, 0], logits[:, 1])


@torch.no_grad()
def test_the_shot_axis_may_be_left_out_for_one_shot():
    model = build_model("dpcn_small").eval()
    query_image, support_images, support_masks = episode_batch(2, 1)
    logits = each_shot(model, (query_image, support_images[:, 0], support_masks[:, 0]))
    torch.testing.assert_close(logits, each_shot(model, (query_image, support_images, support_masks)))


@torch.no_grad()
def test_the_query_is_encoded_once_and_the_supports_together():
    model, seen = build_model("baseline_small").eval(), []
    encode = model.encode_image
    model.encode_image = lambda image, **kwargs: seen.append(tuple(image.shape[:-3])) or encode(image, **kwargs)
    each_shot(model, episode_batch(2, 5))
    assert seen == [(2,), (2, 5)]


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_all_shots_together_are_the_forward_to_the_bit(name):
    torch.manual_seed(0)
    model, view = build_model(name).eval(), View(*episode_batch(2, 3))
    (prediction,) = Predictor(model).predict(view)
    assert torch.equal(prediction.logits, model(*view).logits)


def test_shapes_that_disagree_are_refused():
    model = build_model("baseline_small").eval()
    query_image, support_images, support_masks = episode_batch(2, 3)
    with pytest.raises(ValueError, match="``support_masks``: expected K=3"):
        each_shot(model, (query_image, support_images, support_masks[:, :2]))
    for fusion in ("vote", "concat"):
        with pytest.raises(ValueError, match="``support_images``: expected one shot or more"):
            each_shot(model, (query_image, support_images[:, :0], support_masks[:, :0]), fusion)


def test_a_network_without_the_encode_decode_api_is_refused_with_what_it_lacks():
    class Half(torch.nn.Identity):
        def encode_image(self, image):
            raise NotImplementedError

    with pytest.raises(TypeError, match=r"got Half without encode_support, decode; .*EncodeDecodeModel"):
        Predictor(Half(), fusion="vote")


def test_a_network_without_the_encode_decode_api_is_told_what_works_without():
    with pytest.raises(TypeError, match=r"or use fusion='concat'\."):
        Predictor(torch.nn.Identity(), fusion="or")
    with pytest.raises(TypeError, match=r"or use feature_cache=0\."):
        Predictor(torch.nn.Identity(), cache=FeatureCache(1))
    with pytest.raises(ValueError, match="Did you mean 'vote'"):
        Predictor(build_model("dpcn_small"), fusion="votes")


def count_backend(counts):
    """A backend of torch.compile that counts the calls of its graphs."""

    def backend(graph, inputs):
        def run(*args):
            counts["calls"] += 1
            return graph.forward(*args)

        return run

    return backend


@pytest.mark.parametrize("name", ["dpcn_small", "pfenet_small_dcm", "canet_small_dcm", "panet_small"])
@torch.no_grad()
def test_a_compiled_network_runs_compiled_in_every_step(name):
    torch.compiler.reset()
    torch.manual_seed(0)
    model, counts = build_model(name).eval(), Counter()
    compiled = torch.compile(model, fullgraph=True, backend=count_backend(counts))
    image, mask = torch.rand(3, 40, 50), torch.zeros(40, 50)
    mask[10:30, 15:40] = 1
    plain, fast = FewShotSegmenter(model, size=48), FewShotSegmenter(compiled, size=48)
    for segmenter in (plain, fast):
        segmenter.set_support(image, mask)
    assert counts["calls"] == 2  # encode_image, encode_support
    probability = fast.probability(torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(1)))
    assert counts["calls"] == 4  # encode_image, decode
    expected = plain.probability(torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(probability, expected, rtol=1e-4, atol=1e-5)


def computing_modules(model):
    """Names of the registered modules that compute something, but for containers whose parts are called one by one."""
    containers = (torch.nn.ModuleList, torch.nn.ModuleDict)
    by_parts = {"", "dynamic_convolution", "interaction"}  # kernels are made once and applied many times
    names = {name for name, module in model.named_modules() if not isinstance(module, containers)}
    return names - by_parts


def fired(model, route):
    """The names of the modules whose forward a route calls, with how often."""
    calls = Counter()
    hooks = [
        module.register_forward_hook(lambda module, inputs, output, name=name: calls.update([name]))
        for name, module in model.named_modules()
    ]
    route()
    for hook in hooks:
        hook.remove()
    return calls


@pytest.mark.parametrize("name", ["dpcn_small", "pfenet_small_dcm", "canet_small_dcm"])
@torch.no_grad()
def test_a_hook_on_every_module_that_computes_fires_in_every_route(name):
    torch.manual_seed(0)
    model = build_model(name).eval()
    source = Shapes(0, image_size=32, images_per_class=4).split("test")
    dataset = episodes_of(source, shot=2, transform=TestTransform(32), original_query_mask=True)
    batch = collate_episodes([dataset[0], dataset[1]])
    cached = Predictor(model, cache=FeatureCache("1GB"))
    image, mask = source.load(0)
    segmenter = FewShotSegmenter(copy.deepcopy(model), size=32)

    def segment():
        segmenter.set_support(image, (mask > 0).to(torch.uint8))
        segmenter.segment([image, image])

    routes = {
        "forward": (model, lambda: model(*View(batch.query_image, batch.support_images, batch.support_masks))),
        "test": (model, lambda: Predictor(model).masks(batch)),
        "cached test": (model, lambda: cached.masks(batch)),
        "segmenter": (segmenter.model, segment),
    }
    expected = computing_modules(model)
    for route, (network, run) in routes.items():
        calls = fired(network, run)
        assert expected <= calls.keys(), (route, expected - calls.keys())
    # Every image is in the cache now: no stage below layer4 runs, which PFENet gives masked features each time.
    again = fired(model, lambda: cached.masks(batch))
    assert not [name for name in again if name.startswith("backbone") and not name.startswith("backbone.layer4")]
    assert name.startswith("pfenet") or "backbone.layer4" not in again
    assert {name for name in expected if not name.startswith(("backbone", "reduction"))} <= again.keys()


@torch.no_grad()
def test_pfenet_puts_supports_through_layer4_masked_only():
    model = build_model("pfenet_small").eval()
    image, mask = torch.rand(3, 32, 32), torch.zeros(32, 32)
    mask[5:20, 5:20] = 1
    segmenter = FewShotSegmenter(model, size=32)
    assert fired(model, lambda: segmenter.set_support([image] * 3, [mask] * 3))["backbone.layer4"] == 1
    assert fired(model, lambda: each_shot(model, episode_batch(2, 3)))["backbone.layer4"] == 1 + 3  # query, each shot


def test_masks_have_the_original_size_of_each_query():
    model = build_model("dpcn_small").eval()
    source = Shapes(0, image_size=40, images_per_class=4).split("test")
    dataset = episodes_of(source, shot=1, transform=TestTransform(32), original_query_mask=True)
    batch = collate_episodes([dataset[0], dataset[1]])
    masks, logits = Predictor(model).masks(batch), Predictor(model).logits(batch)
    assert [tuple(mask.shape) for mask in masks] == [(40, 40), (40, 40)]
    assert all(torch.equal(mask, predicted_mask(each[0])) for mask, each in zip(masks, logits, strict=True))
    assert not logits[0].requires_grad


@pytest.mark.parametrize("name", NETWORKS)
def test_training_test_and_segmenter_take_the_same_three_steps(name, monkeypatch):
    torch.manual_seed(0)
    model, steps = build_model(name), []
    for step in ("_encode_image", "_encode_support", "_decode"):
        inner = getattr(model, step)
        monkeypatch.setattr(
            model, step, lambda *args, inner=inner, step=step, **kwargs: steps.append(step) or inner(*args, **kwargs)
        )
    source = Shapes(0, image_size=32, images_per_class=4).split("test")
    dataset = episodes_of(source, shot=1, transform=TestTransform(32), original_query_mask=True)
    batch = collate_episodes([dataset[0]])
    walk = ["_encode_image", "_encode_image", "_encode_support", "_decode"]  # query and supports in either order

    task = FewShotTask(model.train())
    task(batch.query_image, batch.support_images, batch.support_masks)
    swapped = ["_encode_support", "_decode"] if model.query_to_support else []
    assert steps == walk + swapped
    for predictor in (Predictor(model.eval()), Predictor(model, cache=FeatureCache("1GB"))):
        steps.clear()
        predictor.masks(batch)
        assert steps == walk
    steps.clear()
    segmenter = FewShotSegmenter(model, size=32)
    image, mask = source.load(0)
    segmenter.set_support(image, (mask > 0).to(torch.uint8))
    segmenter.segment(image)
    assert sorted(steps) == sorted(walk)

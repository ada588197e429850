"""Values are checked once, where data enters; tensors without values are not checked."""

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from models.base import episode_batch
from samples import features
from torch._subclasses import FakeTensorMode

from dpcn_modules import _checks, build_model
from dpcn_modules.functional import masked_average_pool, pooling, region_activation
from dpcn_modules.models import dpcn, network
from dpcn_modules.models.backbones import base
from dpcn_modules.modules import DCM, FFM, SAM, DCMInteraction

# The modules of the package that call each function by a name of their own.
COUNTED = {
    "check_shapes": (_checks, pooling, network, base),
    "check_values": (_checks, pooling, network),
    "resize_mask": (pooling, dpcn),
}


@pytest.fixture
def counts(monkeypatch):
    """How often each check runs; of the values, also how many tensors wait for the device."""
    found = Counter()

    def counted(name, function):
        def run(*args, **kwargs):
            found[name] += 1
            if name == "check_values":
                found["masks"] += bool(kwargs.get("masks"))
                found["features"] += bool(kwargs.get("features"))
            return function(*args, **kwargs)

        return run

    for name, places in COUNTED.items():
        function = getattr(places[0], name)
        for place in places:
            monkeypatch.setattr(place, name, counted(name, function))
    for module in ("support_activation", "feature_filtering", "dynamic_convolution"):
        place = __import__(f"dpcn_modules.modules.{module}", fromlist=["x"])
        for name in COUNTED:
            if hasattr(place, name):
                monkeypatch.setattr(place, name, counted(name, getattr(place, name)))
    return found


@pytest.mark.parametrize(("training", "resized"), [(False, 1), (True, 2)])
def test_a_forward_of_dpcn_checks_shapes_and_values_once(counts, training, resized):
    model = build_model("dpcn_small").train(training)
    model(*episode_batch(2, 3))
    assert dict(counts) == {"check_shapes": 1, "check_values": 1, "masks": 1, "features": 1, "resize_mask": resized}


def test_a_forward_waits_for_the_device_once(monkeypatch):
    model, waits = build_model("dpcn_small").eval(), []
    waited = torch.Tensor.__bool__

    def wait(tensor):
        waits.append(sys._getframe(1).f_code.co_filename)
        return waited(tensor)

    monkeypatch.setattr(torch.Tensor, "__bool__", wait)
    model(*episode_batch(2, 3))
    # Only on the CPU, the search also looks at the mask to leave the background out.
    assert [Path(name).name for name in waits if "_region_search" not in name] == ["_checks.py"]


@pytest.mark.parametrize("spoil", ["mask", "query", "support"])
@pytest.mark.parametrize("step", ["forward", "steps"])
def test_bad_values_are_refused_by_the_network(spoil, step):
    model = build_model("dpcn_small").eval()
    query, supports, masks = episode_batch(2, 2)
    message = {"mask": "``support_masks``: expected only", "query": "``query_feat", "support": "``support_feat"}[spoil]
    if spoil == "mask":
        masks[0, 0, 3, 3] = 7
    else:
        (query if spoil == "query" else supports)[0].fill_(float("nan"))

    def by_steps(query, supports, masks):
        support = model.encode_support(model.encode_image(supports), masks)
        return model.decode(model.encode_image(query), support, (48, 48))

    with pytest.raises(ValueError, match=message):
        (model if step == "forward" else by_steps)(query, supports, masks)


@pytest.mark.parametrize(
    ("module", "inputs"),
    [
        (SAM(), (features(1, 4, 6, 6), features(1, 4, 6, 6), torch.full((1, 6, 6), 3))),
        (DCM(4).double(), (features(1, 4, 6, 6), features(1, 4, 6, 6), torch.full((1, 6, 6), 3))),
        (DCMInteraction(4).double(), (features(1, 4, 6, 6), features(1, 4, 6, 6), torch.full((1, 6, 6), 3))),
        (FFM(4).double(), (features(1, 4, 6, 6) / 0, features(1, 4), features(1, 1, 6, 6))),
    ],
)
def test_a_module_used_alone_checks_by_default(module, inputs):
    with pytest.raises(ValueError, match=r"expected (only the values|finite values)"):
        module(*inputs)


NETWORKS = ["dpcn_small", "pfenet_small_dcm", "canet_small_dcm", "panet_small"]


@pytest.mark.parametrize("name", NETWORKS)
def test_meta_tensors_go_through(name):
    with torch.device("meta"):
        model = build_model(name)
        query, supports, masks = torch.empty(2, 3, 48, 48), torch.empty(2, 2, 3, 48, 48), torch.empty(2, 2, 48, 48)
    assert model(query, supports, masks).logits.shape == (2, 2, 48, 48)


@pytest.mark.parametrize("name", NETWORKS)
def test_fake_tensors_go_through(name):
    with FakeTensorMode():
        model = build_model(name).eval()
        query, supports, masks = torch.empty(2, 3, 48, 48), torch.empty(2, 2, 3, 48, 48), torch.empty(2, 2, 48, 48)
        assert model(query, supports, masks).logits.shape == (2, 2, 48, 48)


VMAPPED = {
    "DCM": DCM(4).double(),
    "DCMInteraction": DCMInteraction(4).double(),
    "SAM": lambda *inputs: SAM()(*inputs)[0],
    "masked_average_pool": lambda query, support, mask: masked_average_pool(support, mask),
    "region_activation": lambda *inputs: region_activation(*inputs, [(3, 3), (1, 1)], chunk_size=7),
}


@pytest.mark.parametrize("name", VMAPPED)
def test_vmap_is_the_loop_over_its_axis_with_gradients(name):
    function = VMAPPED[name]
    query, support = features(3, 2, 4, 6, 5), features(3, 2, 4, 6, 5, seed=1)
    masks = (features(3, 2, 6, 5, seed=2) > 0).long()
    query.requires_grad_()
    support.requires_grad_()
    mapped = torch.vmap(function)(query, support, masks)
    looped = torch.stack([function(query[i], support[i], masks[i]) for i in range(3)])
    torch.testing.assert_close(mapped, looped)
    weight = features(*looped.shape, seed=3)
    inputs = [each for each in (query, support) if name != "masked_average_pool" or each is support]
    for one, other in zip(
        torch.autograd.grad((mapped * weight).sum(), inputs),
        torch.autograd.grad((looped * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_gradients_of_single_samples_by_vmap_of_grad():
    dcm = DCM(4).double()
    parameters = dict(dcm.named_parameters())
    query, support, masks = features(3, 2, 4, 6, 5), features(3, 2, 4, 6, 5, seed=1), torch.ones(3, 2, 6, 5)

    def loss(parameters, *inputs):
        return torch.func.functional_call(dcm, parameters, inputs).square().mean()

    mapped = torch.vmap(torch.func.grad(loss), in_dims=(None, 0, 0, 0))(parameters, query, support, masks)
    looped = [torch.func.grad(loss)(parameters, query[i], support[i], masks[i]) for i in range(3)]
    for name, gradient in mapped.items():
        torch.testing.assert_close(gradient, torch.stack([each[name] for each in looped]))

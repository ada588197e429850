"""The loss of an episode against its formula."""

import pytest
import torch

from dpcn_modules.functional import episode_loss, mask_loss
from dpcn_modules.interface import Prediction


def written_out(logits, mask):
    """Pixel-mean binary cross-entropy of the foreground probability, pixel by pixel."""
    total, count = 0.0, 0
    for b, y, x in torch.cartesian_prod(*map(torch.arange, mask.shape)).tolist():
        label = mask[b, y, x].item()
        if label == 255:
            continue
        probability = torch.sigmoid(logits[b, 1, y, x] - logits[b, 0, y, x])
        total = total - torch.log(probability if label == 1 else 1 - probability)
        count += 1
    return total / count


@pytest.fixture
def mask():
    mask = torch.randint(0, 2, (2, 4, 5), generator=torch.Generator().manual_seed(0))
    mask[0, 0] = 255
    return mask


def test_mask_loss_is_the_pixel_mean_of_binary_cross_entropy(mask):
    logits = torch.randn(2, 2, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(mask_loss(logits, mask), written_out(logits, mask), rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.*holds 255")
def test_mask_loss_of_void_alone_is_zero():
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    loss = mask_loss(logits, torch.full((1, 3, 3), 255))
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


def test_mask_loss_enlarges_small_logits(mask):
    assert torch.isfinite(mask_loss(torch.randn(2, 2, 2, 2), mask))


def test_mask_loss_names_both_tensors(mask):
    with pytest.raises(ValueError, match=r"``mask``: expected B=3.*``logits``"):
        mask_loss(torch.zeros(3, 2, 4, 5), mask)


def test_episode_loss_weighs_its_parts(mask):
    query, support = torch.randn(2, 2, 4, 5), torch.randn(2, 3, 2, 4, 5)
    auxiliary = (torch.randn(2, 2, 4, 5), torch.randn(2, 2, 4, 5))
    support_masks = mask.unsqueeze(1).expand(-1, 3, -1, -1)
    losses = episode_loss(
        Prediction(query, auxiliary_logits=auxiliary, support_logits=support),
        mask,
        support_masks,
        reverse_weight=0.5,
        auxiliary_weight=0.25,
    )
    shots = torch.stack([mask_loss(support[:, k], mask) for k in range(3)]).mean()
    extra = (mask_loss(auxiliary[0], mask) + mask_loss(auxiliary[1], mask)) / 2
    torch.testing.assert_close(losses["support"], shots)
    torch.testing.assert_close(losses["loss"], mask_loss(query, mask) + 0.5 * shots + 0.25 * extra)


def test_episode_loss_without_the_other_branches_is_the_query_loss(mask):
    losses = episode_loss(Prediction(torch.zeros(2, 2, 4, 5)), mask, mask.unsqueeze(1))
    assert set(losses) == {"loss", "query"}
    torch.testing.assert_close(losses["loss"], torch.tensor(2.0).log())


MASK_DTYPES = [torch.uint8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float64]


@pytest.mark.parametrize("dtype", MASK_DTYPES)
def test_losses_take_masks_of_every_dtype(mask, dtype):
    logits = torch.randn(2, 2, 4, 5)
    assert torch.equal(mask_loss(logits, mask.to(dtype)), mask_loss(logits, mask))
    prediction = Prediction(logits, auxiliary_logits=(logits,), support_logits=logits.unsqueeze(1))
    masks = mask.to(dtype)
    for support_masks in (masks, masks.unsqueeze(1), masks[:, None, None]):
        found = episode_loss(prediction, masks, support_masks)
        assert torch.equal(found["loss"], episode_loss(prediction, mask, mask.unsqueeze(1))["loss"])


def test_losses_take_boolean_masks(mask):
    logits = torch.randn(2, 2, 4, 5)
    assert torch.equal(mask_loss(logits, mask == 1), mask_loss(logits, (mask == 1).long()))


@pytest.mark.parametrize("value", [2, -1, 128, 0.5])
def test_losses_refuse_other_values_by_name(mask, value):
    logits, wrong = torch.randn(2, 2, 4, 5), mask.double()
    wrong[0, 1, 1] = value
    prediction = Prediction(logits, support_logits=logits.unsqueeze(1))
    with pytest.raises(ValueError, match=rf"``mask``: expected only the values 0 .* got \[{value}"):
        mask_loss(logits, wrong)
    with pytest.raises(ValueError, match="``query_mask``: expected only"):
        episode_loss(prediction, wrong, mask.unsqueeze(1))
    with pytest.raises(ValueError, match="``support_masks``: expected only"):
        episode_loss(prediction, mask, wrong.unsqueeze(1))


def test_a_black_and_white_mask_in_the_loss_warns(mask):
    with pytest.warns(UserWarning, match="``mask``: holds 255"):
        mask_loss(torch.randn(2, 2, 4, 5), (mask == 1) * 255)


def test_episode_loss_names_support_logits_of_another_number_of_shots(mask):
    prediction = Prediction(torch.zeros(2, 2, 4, 5), support_logits=torch.zeros(2, 3, 2, 4, 5))
    with pytest.raises(ValueError, match=r"``support_masks``: expected K=3 .*``support_logits``"):
        episode_loss(prediction, mask, mask.unsqueeze(1).expand(-1, 2, -1, -1))

"""Where the cells of a backbone lie: the centroid of what a cell sees, against the corner-aligned grid."""

import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dpcn_modules.models.backbones import Backbone, build_backbone

SIDE = 65  # 8 n + 1
ON_THE_GRID = (0.0, 0.0, 0.0)
# Pixels from the grid of layer2, layer3 and layer4, in the cell at the middle of the feature map. VGG's max-pools of
# 2 x 2 start at the corner, so that a cell lies half a stride, less half a pixel, after its grid point.
OFFSETS = {
    **dict.fromkeys(("resnet50", "resnet101", "resnet50_deep_stem", "resnet50_early_stride"), ON_THE_GRID),
    **dict.fromkeys(("small", "vgg16_dilated"), ON_THE_GRID),
    **dict.fromkeys(("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"), ON_THE_GRID),
    **dict.fromkeys(("timm:resnet18", "timm:mobilenetv3_small_100", "timm:tf_mobilenetv3_small_100"), ON_THE_GRID),
    **dict.fromkeys(("timm:efficientnet_lite0", "timm:regnety_002"), ON_THE_GRID),
    **dict.fromkeys(("vgg16_ceil", "vgg16_bn_ceil"), (3.5, 7.5, None)),
}
SKIPPED_IN_THE_MIDDLE = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm, nn.ReLU, nn.ReLU6, nn.Hardswish)


class _Pass(nn.Module):
    """Gives back its first argument, as a block without attention does."""

    def forward(self, x: Tensor, *args: Any, **options: Any) -> Tensor:
        return x


def averaging(module: nn.Module) -> None:
    """Make a network a mean of its input, with the same windows: what a cell sees is then its gradient."""
    for name, child in list(module.named_children()):
        if isinstance(child, SKIPPED_IN_THE_MIDDLE) or type(child).__name__ == "SqueezeExcite" or name == "se":
            setattr(module, name, nn.Identity())
        elif isinstance(child, nn.MaxPool2d):
            pool = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode, False)
            setattr(module, name, pool)
        elif isinstance(child, nn.Conv2d):
            nn.init.constant_(child.weight, 1 / child.weight[0].numel())
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        else:
            averaging(child)


def centroid(feat: Tensor, image: Tensor, cell: tuple[int, int]) -> list[float]:
    """Row and column of the middle of what a cell sees."""
    (seen,) = torch.autograd.grad(feat[0, :, cell[0], cell[1]].sum(), image, retain_graph=True)
    weight = seen[0].sum(0)
    rows, columns = (torch.arange(side, dtype=weight.dtype) for side in weight.shape)
    return [float((weight.sum(1) @ rows) / weight.sum()), float((weight.sum(0) @ columns) / weight.sum())]


def build(name: str, **options: Any) -> Backbone:
    if name.startswith(("timm:", "efficientnet")) and importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed: pip install 'dpcn_modules[pretrained]'")
    return build_backbone(name, **options).double().eval()


@pytest.mark.parametrize("name", OFFSETS)
def test_cells_lie_on_the_corner_aligned_grid_at_8n_plus_1(name: str) -> None:
    backbone = build(name)
    averaging(backbone)
    side = 129 if name.startswith("vgg") else SIDE  # VGG's layer3 sees more than 65 pixels
    image = torch.ones(1, 3, side, side, dtype=torch.double, requires_grad=True)
    for feat, offset in zip(backbone(image), OFFSETS[name], strict=True):
        cells = feat.shape[-1]
        middle = cells // 2
        assert (side - 1) % (cells - 1) == 0
        if offset is not None:  # VGG's layer4 ends at the border, which moves the centroid
            expected = middle * (side - 1) / (cells - 1) + offset
            assert centroid(feat, image, (middle, middle)) == pytest.approx([expected] * 2, abs=1e-6)


def test_padding_on_one_side_shifts_cells_at_other_sizes() -> None:
    """At 64 px, where the plain form of EfficientNet-Lite has its cell at 32, the form of the weights has it later."""
    found = {}
    for name in ("efficientnet_lite0", "timm:efficientnet_lite0"):
        backbone = build(name)
        averaging(backbone)
        image = torch.ones(1, 3, 64, 64, dtype=torch.double, requires_grad=True)
        found[name] = centroid(backbone(image)[0], image, (4, 4))[0]
    assert found["timm:efficientnet_lite0"] == pytest.approx(32, abs=0.1)
    assert found["efficientnet_lite0"] == pytest.approx(39, abs=0.5)


@pytest.mark.parametrize("size", [(129, 129), (100, 131)])
@pytest.mark.parametrize(
    ("name", "stride"),
    [("vit_small_patch14_dinov2", None), ("vit_small_patch16_dinov3", None), ("vit_tiny_patch16_224", 8)],
)
def test_patches_lie_on_the_grid_at_any_size(name: str, stride: int | None, size: tuple[int, int]) -> None:
    backbone = build(f"timm:{name}", stride=stride)
    net: Any = backbone.net
    net.blocks = nn.ModuleList(_Pass() for _ in net.blocks)
    averaging(net)
    image = torch.ones(1, 3, *size, dtype=torch.double, requires_grad=True)
    feat = backbone(image)[2]
    H, W = feat.shape[-2:]
    for cell in ((1, 1), (H // 2, W // 2), (H - 2, W - 2)):
        expected = [i * (side - 1) / (count - 1) for i, side, count in zip(cell, size, (H, W), strict=True)]
        # Half a pixel of the resized image, which has a patch where the given one has `stride` pixels.
        assert centroid(feat, image, cell) == pytest.approx(expected, abs=0.6)

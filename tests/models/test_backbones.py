"""Backbones: sizes, what learns and what stays frozen, compile and export."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from dpcn_modules.models.backbones import Backbone, ResNetBackbone, build_backbone

SIDES_AT_473 = {
    "resnet50": (60, 60, 60),
    "resnet101": (60, 60, 60),
    "resnet50_deep_stem": (60, 60, 60),
    "resnet101_deep_stem": (60, 60, 60),
    "resnet50_early_stride": (60, 60, 60),
    "resnet101_early_stride": (60, 60, 60),
    "vgg16_dilated": (60, 60, 60),
    "vgg16": (59, 29, 29),
    "vgg16_bn": (59, 29, 29),
    "vgg16_ceil": (60, 30, 30),
    "vgg16_bn_ceil": (60, 30, 30),
    "small": (119, 119, 119),
}
# The layers after which layer2, layer3 and layer4 end, in VGG's one list of layers.
VGG_ENDS = {"vgg16": (17, 24, 30), "vgg16_bn": (24, 34, 43)}
Entries = dict[str, Tensor]


def image(batch: int = 2, side: int = 33) -> Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))


def sum_of_squares(features: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([feat.square().mean() for feat in features]).sum()


def in_layer4(name: str, parameter: str) -> bool:
    if name in VGG_ENDS:
        return int(parameter.split(".")[1]) >= VGG_ENDS[name][1]
    return parameter.startswith("layer4.")


def norm_modes(backbone: nn.Module) -> set[bool]:
    return {module.training for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)}


@pytest.fixture(autouse=True, scope="module")
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file of random weights for each of three backbones."""
    folder = tmp_path_factory.mktemp("weights")
    paths = {name: folder / f"{name}.pth" for name in ("resnet50", "vgg16_bn", "small")}
    for name, path in paths.items():
        torch.save(build_backbone(name).state_dict(), path)
    return paths


@pytest.mark.parametrize("name", SIDES_AT_473)
def test_backbone_gives_the_stated_channels_and_sizes_at_473(name: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name)
        features = backbone(torch.zeros(1, 3, 473, 473))
    expected = [(1, width, side, side) for width, side in zip(backbone.channels, SIDES_AT_473[name], strict=True)]
    assert [tuple(feat.shape) for feat in features] == expected


def test_small_backbone_has_stride_4_and_the_given_widths() -> None:
    backbone = build_backbone("small", widths=(8, 16, 24, 32))
    assert backbone.channels == (16, 24, 32)
    features = backbone(image(side=64))
    assert [tuple(feat.shape) for feat in features] == [(2, 16, 16, 16), (2, 24, 16, 16), (2, 32, 16, 16)]


def test_small_backbone_sees_a_image_alone_as_among_others() -> None:
    backbone = build_backbone("small").double()
    images = image(batch=3).double()
    for alone, among in zip(backbone(images[:1]), backbone(images), strict=True):
        torch.testing.assert_close(alone, among[:1])


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "resnet50_deep_stem", "resnet50_early_stride"])
def test_resnet_dilates_every_3x3_convolution_of_layer3_and_layer4(name: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name)
    for stage, dilation, strides in (("layer2", 1, {(1, 1), (2, 2)}), ("layer3", 2, {(1, 1)}), ("layer4", 4, {(1, 1)})):
        convs = [conv for conv in backbone.get_submodule(stage).modules() if isinstance(conv, nn.Conv2d)]
        assert {conv.dilation for conv in convs if conv.kernel_size == (3, 3)} == {(dilation, dilation)}
        assert {conv.stride for conv in convs} == strides


@pytest.mark.parametrize("name", VGG_ENDS)
def test_vgg_ends_its_stages_after_the_third_and_fourth_pool_and_before_the_fifth(name: str) -> None:
    with torch.device("meta"):
        layers = list(build_backbone(name).get_submodule("features"))
    pools = [index for index, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    assert len(pools) == 4
    assert VGG_ENDS[name] == (pools[2] + 1, pools[3] + 1, len(layers))


def test_deep_stem_has_three_convolutions_and_layer1_takes_what_they_give() -> None:
    backbone = build_backbone("resnet50_deep_stem").eval()
    stem = [
        (conv.in_channels, conv.out_channels, conv.stride, conv.kernel_size)
        for conv in (backbone.get_submodule(f"conv{i}") for i in (1, 2, 3))
    ]
    assert stem == [(3, 64, (2, 2), (3, 3)), (64, 64, (1, 1), (3, 3)), (64, 128, (1, 1), (3, 3))]
    seen = []
    backbone.layer1.register_forward_pre_hook(lambda part, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        backbone(image())
        x = image()
        for i in (1, 2, 3):
            x = backbone.get_submodule(f"bn{i}")(backbone.get_submodule(f"conv{i}")(x)).relu()
    assert torch.equal(seen[0], torch.nn.functional.max_pool2d(x, 3, 2, 1))


def test_deep_stem_takes_no_weights_of_torchvisions() -> None:
    with pytest.raises(FileNotFoundError, match=r"expected the path of a file with a state dict, got 'imagenet'"):
        build_backbone("resnet50_deep_stem", weights="imagenet")


def test_early_stride_moves_the_stride_of_layer2_to_its_first_convolution_and_rounds_up() -> None:
    with torch.device("meta"):
        block = build_backbone("resnet50_early_stride").get_submodule("layer2.0")
        sizes = {
            name: build_backbone(name)(torch.zeros(1, 3, 64, 64))[0].shape[-1]
            for name in ("resnet50", "resnet50_early_stride")
        }
    assert (block.conv1.stride, block.conv2.stride) == ((2, 2), (1, 1))
    assert sizes == {"resnet50": 8, "resnet50_early_stride": 9}


def test_dilated_vgg_ends_without_a_relu_and_with_dilation_in_layer4() -> None:
    with torch.device("meta"):
        features = build_backbone("vgg16_dilated").get_submodule("features")
    assert [layer.dilation for layer in features[24:] if isinstance(layer, nn.Conv2d)] == [(2, 2)] * 3
    assert isinstance(features[-1], nn.Conv2d)
    pools = [layer for layer in features if isinstance(layer, nn.MaxPool2d)]
    assert [(pool.kernel_size, pool.stride, pool.padding) for pool in pools] == [(3, 2, 1)] * 3 + [(3, 1, 1)]


def test_backbone_leaves_layer4_out_where_it_is_not_asked_for() -> None:
    backbone = build_backbone("small")
    _, layer3, high = backbone(image(), high=False)
    assert torch.equal(high, layer3)
    assert torch.equal(backbone.last(layer3), backbone(image())[2])


def test_vgg_gives_what_its_layers_give_up_to_each_end() -> None:
    backbone = build_backbone("vgg16_bn").eval()
    with torch.no_grad():
        for feat, end in zip(backbone(image()), VGG_ENDS["vgg16_bn"], strict=True):
            assert torch.equal(feat, backbone.get_submodule("features")[:end](image()))


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "vgg16", "vgg16_bn"])
def test_state_dict_has_torchvisions_names_without_the_classifier(name: str) -> None:
    with torch.device("meta"):
        own, original = build_backbone(name).state_dict(), models.get_model(name).state_dict()
    expected = {key: value.shape for key, value in original.items() if not key.startswith(("fc.", "classifier."))}
    assert {key: value.shape for key, value in own.items()} == expected


@pytest.mark.parametrize("name", ["resnet50", "vgg16_bn", "small"])
def test_without_weights_everything_learns_and_norms_train(name: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name)
    assert (backbone.trainable, backbone.frozen_norm) == ("all", False)
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    assert False not in norm_modes(backbone)


@pytest.mark.parametrize("name", ["resnet50", "small"])
def test_with_weights_only_layer4_learns_and_norms_are_frozen(name: str, files: dict[str, Path]) -> None:
    backbone = build_backbone(name, weights=files[name])
    assert (backbone.trainable, backbone.frozen_norm) == ("layer4", True)
    assert {key for key, parameter in backbone.named_parameters() if parameter.requires_grad} == {
        key for key, _ in backbone.named_parameters() if in_layer4(name, key)
    }
    assert True not in norm_modes(backbone)


def test_defaults_can_be_overridden_with_weights(files: dict[str, Path]) -> None:
    backbone = build_backbone("resnet50", weights=files["resnet50"], trainable="all", frozen_norm=False)
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    assert norm_modes(backbone) == {True}


@pytest.mark.parametrize(
    ("name", "trainable"),
    [
        *[(name, trainable) for name in ("resnet50", "small") for trainable in ("all", "layer4", "none")],
        ("vgg16", "layer4"),
    ],
)
def test_gradient_reaches_exactly_the_trainable_parameters(name: str, trainable: str) -> None:
    backbone = build_backbone(name, trainable=trainable)
    features = backbone(image())
    learns = [trainable == "all", trainable == "all", trainable != "none"]
    assert [feat.requires_grad for feat in features] == learns
    if trainable != "none":
        sum_of_squares(features).backward()
    reached = {key for key, parameter in backbone.named_parameters() if parameter.grad is not None}
    parts = {"all": lambda key: True, "layer4": lambda key: in_layer4(name, key), "none": lambda key: False}
    assert reached == {key for key, _ in backbone.named_parameters() if parts[trainable](key)}
    assert all(bool(parameter.grad.any()) for parameter in backbone.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("name", ["resnet50", "vgg16_bn", "small"])
def test_late_parameters_are_layer4s_where_it_alone_learns(name: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name, trainable="layer4")
    late = {id(parameter) for parameter in backbone.delayed_parameters()}
    assert late == {id(parameter) for key, parameter in backbone.named_parameters() if in_layer4(name, key)}


@pytest.mark.parametrize("trainable", ["all", "none"])
def test_no_parameters_are_late_where_layer4_is_like_the_rest(trainable: str) -> None:
    assert build_backbone("small", trainable=trainable).delayed_parameters() == []


@pytest.mark.parametrize("name", ["resnet50", "small"])
def test_frozen_stages_save_nothing_for_a_backward(name: str) -> None:
    saved = []

    def count(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        build_backbone(name, trainable="none")(image())
    assert saved == []


def test_image_that_asks_for_a_gradient_gets_it_through_frozen_stages() -> None:
    given = image().requires_grad_()
    sum_of_squares(build_backbone("small", trainable="none")(given)).backward()
    assert given.grad is not None
    assert bool(given.grad.any())


def training_step(backbone: Backbone) -> tuple[Entries, Entries]:
    """State before and after a step in train mode that would move every parameter it may."""
    before = copy.deepcopy(backbone.state_dict())
    backbone.eval().train()
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    sum_of_squares(backbone(image())).backward()
    optimizer.step()
    return before, dict(backbone.state_dict())


@pytest.mark.parametrize("name", ["resnet50", "vgg16_bn", "small"])
def test_frozen_parts_stay_as_they_were_to_the_bit_after_a_training_step(name: str, files: dict[str, Path]) -> None:
    backbone = build_backbone(name, weights=files[name])
    before, after = training_step(backbone)
    buffers = {key for key, _ in backbone.named_buffers()}
    assert True not in norm_modes(backbone)
    for key, value in before.items():
        assert torch.equal(value, after[key]) == (key in buffers or not in_layer4(name, key)), key


def test_norm_statistics_move_where_they_are_not_frozen() -> None:
    backbone = build_backbone("resnet50", trainable="layer4", frozen_norm=False)
    before, after = training_step(backbone)
    assert norm_modes(backbone) == {True}
    assert not torch.equal(before["bn1.running_mean"], after["bn1.running_mean"])
    assert torch.equal(before["bn1.weight"], after["bn1.weight"])


def test_frozen_norm_stays_when_its_layers_are_made_synchronous() -> None:
    backbone = ResNetBackbone(50, frozen_norm=True)
    synchronous = nn.SyncBatchNorm.convert_sync_batchnorm(backbone).train()
    assert not any(module.training for module in synchronous.modules() if isinstance(module, nn.SyncBatchNorm))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "resnet5",
            {},
            "``name``: expected one of resnet50, resnet101, resnet50_deep_stem, .*, timm:NAME, got 'resnet5'",
        ),
        ("small", {"trainable": "layer3"}, "``trainable``: expected one of all, layer4, none, got 'layer3'"),
        ("small", {"widths": (8, 16, 24)}, r"``widths``: expected four positive multiples of 8.*\(8, 16, 24\)"),
        ("small", {"widths": (8, 8, 8, 12)}, r"``widths``: expected four positive multiples of 8.*8, 12\)"),
        ("small", {"widths": (0, 8, 8, 8)}, r"``widths``: expected four positive multiples of 8.*\(0, 8"),
    ],
)
def test_build_backbone_rejects_unknown_values(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_backbone(name, **options)


def test_resnet_rejects_an_unknown_depth() -> None:
    with pytest.raises(ValueError, match="``depth``: expected one of 50, 101, got '34'"):
        ResNetBackbone(34)


@pytest.mark.parametrize("name", ["resnet50", "vgg16", "small"])
@pytest.mark.parametrize("shape", [(1, 1, 33, 33), (3, 33, 33)])
def test_backbone_rejects_a_tensor_that_is_no_batch_of_images(name: str, shape: tuple[int, ...]) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=r"``image``: expected .* \(B 3 Hi Wi\)"):
        build_backbone(name)(torch.zeros(shape))


@pytest.fixture(scope="module", params=["resnet50", "small"])
def trained_part(request: pytest.FixtureRequest) -> Backbone:
    return build_backbone(request.param, trainable="layer4", frozen_norm=True)


def test_backbone_compiles_as_one_graph(trained_part: Backbone) -> None:
    compiled = torch.compile(trained_part, fullgraph=True, backend="eager")
    for actual, expected in zip(compiled(image()), trained_part(image()), strict=True):
        torch.testing.assert_close(actual, expected)
        assert actual.requires_grad == expected.requires_grad


def test_backbone_exports(trained_part: Backbone) -> None:
    exported = torch.export.export(trained_part, (image(),)).module()
    for actual, expected in zip(exported(image()), trained_part(image()), strict=True):
        torch.testing.assert_close(actual, expected)


def test_backbone_runs_in_float64(trained_part: Backbone) -> None:
    double = copy.deepcopy(trained_part).double()
    for actual, single in zip(double(image().double()), trained_part(image()), strict=True):
        assert actual.dtype == torch.float64
        assert (actual - single).norm() < 1e-4 * actual.norm()

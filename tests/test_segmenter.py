"""FewShotSegmenter: any kind and size of image in, a mask of the image's own size out, the support encoded once."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dpcn_modules.data.boxes import annotate
from dpcn_modules.data.io import load_image, load_mask
from dpcn_modules.data.object_masks import target_mask
from dpcn_modules.data.transforms import TestTransform
from dpcn_modules.evaluation import logits_at_original_size
from dpcn_modules.models import FewShotNetwork, build_model
from dpcn_modules.segmenter import FewShotSegmenter

SIZE = 64


def image(height: int = 48, width: int = 80, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def mask(height: int = 48, width: int = 80) -> Tensor:
    rectangle = torch.zeros(height, width, dtype=torch.uint8)
    rectangle[height // 4 : height // 2, width // 4 : width // 2] = 1
    return rectangle


@pytest.fixture
def model() -> FewShotNetwork:
    torch.manual_seed(0)
    return build_model("dpcn_small")


@pytest.fixture
def segmenter(model: FewShotNetwork) -> FewShotSegmenter:
    return FewShotSegmenter(model, size=SIZE)


def save_checkpoint(model: FewShotNetwork, path: Path, **extra: int) -> Path:
    parameters = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save(
        {"network": model.name, "settings": dataclasses.asdict(model.settings), "state_dict": parameters, **extra}, path
    )
    return path


@pytest.mark.parametrize("size", [(48, 80), (80, 48), (SIZE, SIZE), (33, 200), (7, 9)])
def test_segment_and_probability_have_the_images_own_size(segmenter: FewShotSegmenter, size: tuple[int, int]) -> None:
    segmenter.set_support(image(), mask())
    segmented, probability = segmenter.segment(image(*size)), segmenter.probability(image(*size))
    assert (segmented.shape, segmented.dtype) == (size, torch.uint8)
    assert (probability.shape, probability.dtype) == (size, torch.float32)
    assert set(segmented.unique().tolist()) <= {0, 1}
    assert 0 <= probability.min() <= probability.max() <= 1


@pytest.mark.parametrize(
    ("name", "shot"),
    [("dpcn_small", 1), ("dpcn_small", 3), ("pfenet_small", 2), ("canet_small_dcm", 2), ("panet_small", 2)],
)
def test_segmenter_equals_forward_of_the_network_on_the_same_episode(name: str, shot: int) -> None:
    torch.manual_seed(0)
    segmenter = FewShotSegmenter(build_model(name), size=SIZE)
    images, query = [image(40, 60 + i, seed=i) for i in range(shot)], image(50, 30, seed=9)
    masks = [mask(40, 60 + i) for i in range(shot)]
    transform = TestTransform(SIZE)
    pairs = [transform(*pair) for pair in zip(images, masks, strict=True)]
    with torch.no_grad():
        prediction = segmenter.model(
            transform(query, torch.zeros(50, 30))[0].unsqueeze(0),
            torch.stack([image for image, _ in pairs]).unsqueeze(0),
            torch.stack([mask for _, mask in pairs]).unsqueeze(0),
        )
    logits = logits_at_original_size(prediction.logits[0], (50, 30))

    segmenter.set_support(images, masks)
    torch.testing.assert_close(segmenter.probability(query), logits.softmax(0)[1])
    assert torch.equal(segmenter.segment(query), logits.argmax(0).to(torch.uint8))


def test_paths_pil_numpy_and_tensors_give_the_same(segmenter: FewShotSegmenter, tmp_path: Path) -> None:
    arrays = image().permute(1, 2, 0).numpy(), mask().numpy()
    paths = tmp_path / "cup.png", tmp_path / "cup_mask.png"
    for array, path in zip(arrays, paths, strict=True):
        Image.fromarray(array).save(path)
    results = []
    for shown, target in [
        (image(), mask()),
        arrays,
        paths,
        [str(path) for path in paths],
        [Image.open(path) for path in paths],
        (image().float() / 255, mask().bool()),
        ([image()], [mask()]),
        ((paths[0],), (255 * mask(),)),
    ]:
        segmenter.set_support(shown, target)
        results.append(segmenter.probability(shown[0] if isinstance(shown, list | tuple) else shown))
    assert all(torch.equal(result, results[0]) for result in results)


def test_support_is_encoded_once_and_each_image_once(segmenter: FewShotSegmenter) -> None:
    batches: list[int] = []
    segmenter.model.backbone.register_forward_hook(lambda _module, inputs, _out: batches.append(len(inputs[0])))
    segmenter.set_support([image(seed=i) for i in range(5)], [mask()] * 5)
    for seed in range(3):
        segmenter.segment(image(seed=seed))
    assert batches == [5, 1, 1, 1]


def test_set_support_again_replaces_the_first(segmenter: FewShotSegmenter) -> None:
    segmenter.set_support(image(seed=1), mask())
    first = segmenter.probability(image())
    segmenter.set_support(image(seed=2), 1 - mask())
    second = segmenter.probability(image())
    segmenter.set_support(image(seed=1), mask())
    assert not torch.equal(first, second)
    assert torch.equal(segmenter.probability(image()), first)


def test_threshold_is_a_probability_and_a_higher_one_takes_less(segmenter: FewShotSegmenter) -> None:
    segmenter.set_support(image(), mask())
    probability = segmenter.probability(image())
    middle = float(probability.median())
    assert torch.equal(segmenter.segment(image(), threshold=middle), (probability > middle).to(torch.uint8))
    areas = [int(segmenter.segment(image(), threshold=p).sum()) for p in (0, middle, 1)]
    assert areas[0] == probability.numel() > areas[1] > areas[2] == 0


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_segment_rejects_threshold_that_is_no_probability(segmenter: FewShotSegmenter, threshold: float) -> None:
    segmenter.set_support(image(), mask())
    with pytest.raises(ValueError, match=r"``threshold``: expected a probability from 0 to 1, got"):
        segmenter.segment(image(), threshold=threshold)


def test_network_given_in_training_mode_is_used_in_evaluation_mode_and_left_unchanged(model: FewShotNetwork) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    segmenter = FewShotSegmenter(model.train(), size=SIZE)
    segmenter.set_support(image(), mask())
    assert torch.equal(segmenter.probability(image()), segmenter.probability(image()))
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_results_are_ordinary_tensors_that_can_be_edited_in_place(segmenter: FewShotSegmenter) -> None:
    segmenter.set_support(image(), mask())
    segmented, probability = segmenter.segment(image()), segmenter.probability(image())
    assert not probability.requires_grad
    segmented *= 255
    probability.clamp_(max=0.5)
    assert not probability.is_inference()
    assert not segmented.is_inference()


@pytest.mark.parametrize("shot", [1, 2])
def test_support_without_any_foreground_is_refused(segmenter: FewShotSegmenter, shot: int) -> None:
    with pytest.raises(ValueError, match=rf"``masks``: {shot} of {shot} show nothing of the object \(mask 1.*at least"):
        segmenter.set_support([image()] * shot, [torch.zeros(48, 80)] * shot)


def test_a_shot_without_foreground_is_named(segmenter: FewShotSegmenter) -> None:
    with pytest.warns(UserWarning, match=r"``masks``: 1 of 2 show nothing of the object \(mask 2\), and do not count"):
        segmenter.set_support([image()] * 2, [mask(), torch.zeros(48, 80)])
    assert torch.isfinite(segmenter.probability(image())).all()


@pytest.mark.parametrize(("top", "left"), [(100, 100), (103, 106), (0, 0), (994, 1194)])
def test_a_tiny_object_in_a_large_image_is_not_lost(segmenter: FewShotSegmenter, top: int, left: int) -> None:
    tiny = torch.zeros(1000, 1200)
    tiny[top : top + 6, left : left + 6] = 1
    segmenter.set_support(torch.rand(3, 1000, 1200), tiny)
    assert float(segmenter._support.mask.sum()) >= 1  # type: ignore[union-attr]


def test_class_id_takes_one_class_of_a_mask_of_class_ids(segmenter: FewShotSegmenter) -> None:
    ids = mask() * 15
    ids[0], ids[-1] = 7, 255
    segmenter.set_support(image(), ids, class_id=15)
    by_class = segmenter.probability(image())
    binary = mask()
    binary[-1] = 255
    segmenter.set_support(image(), binary, void=255)
    assert torch.equal(segmenter.probability(image()), by_class)
    segmenter.set_support(image(), ids, class_id=[3, 15])
    assert torch.equal(segmenter.probability(image()), by_class)


def test_what_255_means_is_asked_beside_a_1(segmenter: FewShotSegmenter) -> None:
    both = mask()
    both[-1] = 255
    with pytest.raises(ValueError, match="void=255"):
        segmenter.set_support(image(), both)
    with pytest.raises(ValueError, match="``class_id``: expected the id of the object, or ``void``"):
        segmenter.set_support(image(), both, class_id=1, void=255)


def test_images_are_taken_as_bytes_and_open_files(segmenter: FewShotSegmenter, tmp_path: Path) -> None:
    Image.fromarray(image().mul(255).byte().permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    Image.fromarray(mask().numpy() * 255).save(tmp_path / "m.png")
    segmenter.set_support(tmp_path / "a.png", tmp_path / "m.png")
    expected = segmenter.probability(tmp_path / "a.png")
    segmenter.set_support((tmp_path / "a.png").read_bytes(), (tmp_path / "m.png").read_bytes())
    assert torch.equal(segmenter.probability((tmp_path / "a.png").read_bytes()), expected)
    with (tmp_path / "a.png").open("rb") as opened, (tmp_path / "m.png").open("rb") as mask_file:
        segmenter.set_support(opened, mask_file)
        assert torch.equal(segmenter.probability(opened), expected)


@pytest.mark.parametrize("annotation", ["box", "class_box"])
@pytest.mark.parametrize("class_id", [None, 15])
def test_annotation_turns_precise_masks_into_boxes(
    segmenter: FewShotSegmenter, annotation: str, class_id: int | None
) -> None:
    precise = mask()
    precise[30:40, 10:50] = torch.eye(10, 40, dtype=torch.uint8)
    segmenter.set_support(image(), precise)
    by_mask = segmenter.probability(image())
    segmenter.set_support(image(), precise * (class_id or 1), class_id=class_id, annotation=annotation)
    by_box = segmenter.probability(image())
    segmenter.set_support(image(), annotate(precise, annotation))
    assert torch.equal(by_box, segmenter.probability(image()))
    assert not torch.equal(by_box, by_mask)


def test_unknown_annotation_is_named_and_keeps_the_support(segmenter: FewShotSegmenter) -> None:
    segmenter.set_support(image(), mask())
    before = segmenter.probability(image())
    with pytest.raises(ValueError, match=r"``annotation``: .* got 'bbox'\. Did you mean 'box'\?"):
        segmenter.set_support(image(seed=1), mask(), annotation="bbox")
    assert torch.equal(segmenter.probability(image()), before)


@pytest.mark.parametrize("class_id", [8, 0, 255, 300])
def test_set_support_names_the_class_ids_that_are_there(segmenter: FewShotSegmenter, class_id: int) -> None:
    ids = mask() * 15
    ids[0], ids[-1] = 7, 255
    with pytest.raises(ValueError, match=rf"support mask 1: .*``class_id`` {class_id}, got only .* \[7, 15\]"):
        segmenter.set_support(image(), ids, class_id=class_id)


@pytest.mark.parametrize(
    ("images", "masks", "error", "text"),
    [
        ([image()] * 2, [mask()], ValueError, "got 2 images and 1 masks"),
        (image(), [mask()] * 3, ValueError, "got 1 images and 3 masks"),
        ([], [], ValueError, "got 0 images and 0 masks"),
        (
            [image()] * 2,
            [mask(), mask(47, 80)],
            ValueError,
            "support image 2 is 80 x 48 .* support mask 2 is 80 x 47",
        ),
        (image(), mask() * 15, ValueError, r"support mask 1: expected the mask of one object, .* got 15"),
        (image().float(), mask(), ValueError, r"``support image 1``: expected floating-point values in \[0, 1\]"),
        (
            torch.stack([image()] * 2),
            mask(),
            ValueError,
            r"expected a tensor \(3, H, W\), got shape \(2, 3, 48, 80\)",
        ),
        (5, mask(), TypeError, "``support image 1``: expected a path, a PIL image, an array or a tensor, got int"),
        ("nowhere/cup.jpg", mask(), FileNotFoundError, "nowhere/cup.jpg: there is no such file"),
    ],
)
def test_set_support_names_what_is_wrong_and_keeps_the_support_it_had(
    segmenter: FewShotSegmenter, images: object, masks: object, error: type[Exception], text: str
) -> None:
    segmenter.set_support(image(), mask())
    before = segmenter.probability(image())
    with pytest.raises(error, match=text):
        segmenter.set_support(images, masks)
    assert torch.equal(segmenter.probability(image()), before)


@pytest.mark.parametrize("method", ["segment", "probability"])
def test_segmenting_without_support_is_an_error(segmenter: FewShotSegmenter, method: str) -> None:
    with pytest.raises(RuntimeError, match=r"call set_support\(images, masks\) first"):
        getattr(segmenter, method)(image())


def test_device_that_is_not_there_is_an_error(model: FewShotNetwork) -> None:
    with pytest.raises(ValueError, match=r"``device``: .* got 'cuda:99', .* `dpcn info` says why, and device='cpu'"):
        FewShotSegmenter(model, size=SIZE, device="cuda:99")


def test_size_that_is_not_positive_is_an_error(model: FewShotNetwork) -> None:
    with pytest.raises(ValueError, match="``size``: expected at least 1, got 0"):
        FewShotSegmenter(model, size=0)


@pytest.mark.parametrize(
    ("saved", "asked", "size"), [({"size": 96}, None, 96), ({}, None, 473), ({"size": 96}, 48, 48), ({}, 48, 48)]
)
def test_from_checkpoint_takes_the_asked_size_else_the_trained_one_else_473(
    model: FewShotNetwork, tmp_path: Path, saved: dict[str, int], asked: int | None, size: int
) -> None:
    path = save_checkpoint(model, tmp_path / "best.ckpt", **saved)
    assert FewShotSegmenter.from_checkpoint(path, size=asked, device="cpu").size == size


def test_from_checkpoint_segments_as_the_network_that_was_saved(segmenter: FewShotSegmenter, tmp_path: Path) -> None:
    path = save_checkpoint(segmenter.model, tmp_path / "best.ckpt", size=SIZE)
    loaded = FewShotSegmenter.from_checkpoint(str(path), device="cpu")
    for each in (segmenter, loaded):
        each.set_support(image(), mask())
    assert torch.equal(loaded.probability(image(seed=3)), segmenter.probability(image(seed=3)))


def test_from_checkpoint_runs_on_the_gpu_where_there_is_one(model: FewShotNetwork, tmp_path: Path) -> None:
    loaded = FewShotSegmenter.from_checkpoint(save_checkpoint(model, tmp_path / "best.ckpt", size=SIZE))
    assert loaded.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    loaded.set_support(image(), mask())
    assert loaded.probability(image()).device.type == "cpu"


@pytest.mark.real_data
def test_real_images_of_any_shape_are_segmented_at_their_own_size(segmenter: FewShotSegmenter, real_data: Path) -> None:
    voc = real_data / "voc2012_subset"
    names = (voc / "ImageSets" / "Segmentation" / "val.txt").read_text().split()[:4]
    images = [voc / "JPEGImages" / f"{name}.jpg" for name in names]
    targets = [load_mask(voc / "SegmentationClass" / f"{name}.png") for name in names]
    class_ids = [int(next(value for value in target.unique() if value not in (0, 255))) for target in targets]
    objects = [target_mask(*pair) for pair in zip(targets, class_ids, strict=True)]
    segmenter.set_support(images[:3], objects[:3], void=255)
    for path in images:
        segmented = segmenter.segment(path)
        assert segmented.shape == load_image(path).shape[1:]
        assert np.isin(segmented.numpy(), (0, 1)).all()


def test_a_list_of_images_of_unequal_size_gives_a_list_of_masks(segmenter: FewShotSegmenter) -> None:
    segmenter.set_support(image(), mask())
    generator = torch.Generator().manual_seed(1)
    images = [torch.rand(3, height, width, generator=generator) for height, width in ((40, 60), (64, 64), (90, 30))]
    together, alone = segmenter.probability(images), [segmenter.probability(each) for each in images]
    assert [tuple(each.shape) for each in together] == [(40, 60), (64, 64), (90, 30)]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    segmenter.batch_size = 2
    torch.testing.assert_close(segmenter.probability(images), together, rtol=1e-4, atol=1e-5)
    masks = segmenter.segment(images, threshold=0.4)
    assert all(torch.equal(found, (each > 0.4).to(torch.uint8)) for found, each in zip(masks, together, strict=True))
    assert segmenter.segment([]) == []


@pytest.mark.parametrize("name", ["dpcn_small", "pfenet_small_dcm", "canet_small_dcm", "panet_small"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_networks_of_other_precision_segment(name: str, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    segmenters = [FewShotSegmenter(build_model(name), size=SIZE)]
    segmenters.append(FewShotSegmenter(build_model(name).to(dtype), size=SIZE))
    segmenters[1].model.load_state_dict(segmenters[0].model.state_dict())
    for each in segmenters:
        each.set_support([image(seed=i) for i in range(2)], [mask()] * 2)
    expected, probability = (each.probability(image()) for each in segmenters)
    assert probability.dtype == torch.float32
    torch.testing.assert_close(probability, expected, rtol=0, atol=tolerance)

"""Exported graphs: portable operators only, and the same logits in ONNX Runtime."""

from pathlib import Path

import pytest
import torch
from models.base import episode_batch
from torch import Tensor, nn

from dpcn_modules.models import FewShotNetwork, build_model

NETWORKS = ["dpcn_small", "baseline_small", "pfenet_small", "pfenet_small_dcm", "canet_small_dcm", "panet_small"]


class Logits(nn.Module):
    """The logits alone: ONNX has no NamedTuple."""

    def __init__(self, network: FewShotNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, query_image: Tensor, support_images: Tensor, support_masks: Tensor) -> Tensor:
        logits: Tensor = self.network(query_image, support_images, support_masks).logits
        return logits


def build(name: str) -> Logits:
    torch.manual_seed(0)
    network = build_model(name).eval()
    if getattr(network, "interaction", None) is not None:
        nn.init.normal_(network.interaction.merge.weight, std=0.1)
    return Logits(network).eval()


def batch_of(B: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two shots, of which the first sample's second is empty."""
    query, supports, masks = episode_batch(B, 2)
    masks[0, 1] = 0
    return query, supports, masks


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_an_exported_graph_has_portable_operators_only(name: str, strict: bool) -> None:
    model, batch = build(name), batch_of(2)
    program = torch.export.export(model, batch, strict=strict)
    nodes = [node for module in program.graph_module.modules() for node in module.graph.nodes]
    assert [node for node in nodes if "dpcn_modules" in str(node.target)] == []  # made for the CPU
    chosen = [node for node in nodes if str(node.target).startswith("aten.where")]
    assert [node for node in chosen if node.meta["val"].dtype == torch.bool] == []  # ONNX Runtime has none
    torch.testing.assert_close(program.module()(*batch), model(*batch), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_runtime_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    """For batches of any size without the dynamic convolution, whose groups must be fixed in ONNX."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    import onnxruntime

    model, any_batch = build(name), not (name.startswith("dpcn") or name.endswith("_dcm"))
    batch = torch.export.Dim("batch", min=1, max=8)
    shapes = ({0: batch},) * 3 if any_batch else None
    torch.onnx.export(model, batch_of(2), tmp_path / "model.onnx", dynamo=True, dynamic_shapes=shapes, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for B in (1, 2, 3) if any_batch else (2,):
        inputs = {each.name: value.numpy() for each, value in zip(session.get_inputs(), batch_of(B), strict=True)}
        found, expected = torch.from_numpy(session.run(None, inputs)[0]), model(*batch_of(B)).detach()
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
        assert torch.equal(found.argmax(1), expected.argmax(1))

"""Every network trains in DistributedDataParallel, which stops at a parameter without a gradient."""

import pytest
import torch
from models.base import episode_batch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from dpcn_modules import add_dcm, build_model
from dpcn_modules.functional import episode_loss


@pytest.fixture
def _group():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("_group")
@pytest.mark.parametrize("K", [1, 2])
@pytest.mark.parametrize(
    "name",
    ["dpcn_small", "baseline_small", "pfenet_small_dcm", "canet_small_dcm", "panet_small", "canet_small + adapter"],
)
def test_a_network_trains_in_ddp(name, K):
    torch.manual_seed(0)
    model = build_model(name.split(" ")[0])
    if "adapter" in name:
        add_dcm(model, train="adapter")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    parallel = DistributedDataParallel(model.train())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    query, supports, masks = episode_batch(K=K)
    for _ in range(2):  # the second step finds what the first one left without a gradient
        optimizer.zero_grad()
        episode_loss(parallel(query, supports, masks), masks[:, 0], masks)["loss"].backward()
        optimizer.step()
    moved = {key.split(".")[0] for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == (
        {"interaction"}
        if "adapter" in name
        else {key.split(".")[0] for key in before} - ({"attention"} if K == 1 else set())
    )

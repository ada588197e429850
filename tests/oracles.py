"""The operations as the equations read: loops, slow, obvious, differentiable. Shapes as in the package."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """``(Hi, Wi)`` to ``(H, W)``: bilinear with aligned corners, at least 0.5; else the largest area shares."""
    H, W = size
    (Hi, Wi) = mask.shape
    bilinear, share = torch.zeros(2, H, W, dtype=torch.float64)
    for i in range(H):
        for j in range(W):
            y = i * (Hi - 1) / (H - 1) if H > 1 else 0.0
            x = j * (Wi - 1) / (W - 1) if W > 1 else 0.0
            for row in range(Hi):
                for column in range(Wi):
                    nearness = max(0.0, 1 - abs(y - row)) * max(0.0, 1 - abs(x - column))
                    bilinear[i, j] += nearness * float(mask[row, column] == 1)
            rows = range(i * Hi // H, math.ceil((i + 1) * Hi / H))
            columns = range(j * Wi // W, math.ceil((j + 1) * Wi / W))
            inside = sum(int(mask[row, column] == 1) for row in rows for column in columns)
            share[i, j] = inside / (len(rows) * len(columns))
    if (bilinear > 0.5 - 1e-6).any():
        return (bilinear > 0.5 - 1e-6).float()
    return ((share > share.max() - 1e-6) & (share > 0)).float()


def masked_average_pool(feat: Tensor, mask: Tensor) -> Tensor:
    """Eq. 2, ``(B, K, C, H, W)`` and ``(B, K, H, W)`` in {0, 1} to ``(B, C)``: one position after the other."""
    B, K, C, H, W = feat.shape
    prototypes = []
    for b in range(B):
        shots = []
        for k in range(K):
            total, area = feat.new_zeros(C), 0
            for i in range(H):
                for j in range(W):
                    if mask[b, k, i, j] == 1:
                        total = total + feat[b, k, :, i, j]
                        area += 1
            if area:
                shots.append(total / area)
        prototypes.append(torch.stack(shots).mean(0) if shots else feat[b].sum((0, 2, 3)) * 0)
    return torch.stack(prototypes)


def foreground_vectors(feat: Tensor, mask: Tensor) -> Tensor:
    """Eq. 5 and 11 for one sample, ``(K, C, H, W)`` and ``(K, H, W)``: ``(N, C)``, raster order, shot after shot."""
    K, _, H, W = feat.shape
    vectors = [feat[k, :, i, j] for k in range(K) for i in range(H) for j in range(W) if mask[k, i, j] == 1]
    return torch.stack(vectors) if vectors else feat.new_zeros(0, feat.shape[1])


def foreground_pool(feat: Tensor, mask: Tensor, bins: int) -> Tensor:
    """Eq. 6, ``(B, K, C, H, W)`` and ``(B, K, H, W)`` to ``(B, bins, C)``: gather, then adaptive average pooling."""
    pooled = []
    for b in range(feat.shape[0]):
        vectors = foreground_vectors(feat[b], mask[b])
        if len(vectors):
            pooled.append(F.adaptive_avg_pool1d(vectors.T, bins).T)
        else:
            pooled.append((feat[b].sum((0, 2, 3)) * 0).expand(bins, -1))
    return torch.stack(pooled)


def cosine_map(vector: Tensor, feat: Tensor) -> Tensor:
    """Cosine of ``(C,)`` with every vector of ``(C, H, W)``; 0 with a zero vector."""
    product = (vector[:, None, None] * feat).sum(0)
    return product / (vector.norm() * feat.norm(dim=0)).clamp(min=1e-12)


def activation_map(query: Tensor, support: Tensor, window: tuple[int, int]) -> Tensor:
    """Eq. 1 for one query ``(C, H, W)`` and one masked support ``(C, Hs, Ws)``, before the normalisation."""
    _, H, W = query.shape
    _, Hs, Ws = support.shape
    up, left = window[0] // 2, window[1] // 2
    padded = F.pad(query, (left, left, up, up))
    scores = []
    for i in range(Hs):
        for j in range(Ws):
            total = query.new_zeros(H, W)
            for y in range(-up, up + 1):
                for x in range(-left, left + 1):
                    if 0 <= i + y < Hs and 0 <= j + x < Ws:
                        seen = padded[:, up + y : up + y + H, left + x : left + x + W]
                        total = total + cosine_map(support[:, i + y, j + x], seen)
            scores.append(total / (window[0] * window[1]))
    return torch.stack(scores).max(0).values


def region_activation(
    query_feat: Tensor, support_feat: Tensor, mask: Tensor, windows: tuple[tuple[int, int], ...], eps: float = 1e-7
) -> Tensor:
    """Eq. 1, ``(B, C, H, W)``, ``(B, K, C, Hs, Ws)``, ``(B, K, Hs, Ws)`` in {0, 1} to ``(B, A, H, W)``."""
    B, K = mask.shape[:2]
    samples = []
    for b in range(B):
        shots = []
        for k in range(K):
            if not (mask[b, k] == 1).any():
                continue
            maps = []
            masked = support_feat[b, k] * (mask[b, k] == 1).to(support_feat.dtype)
            for window in windows:
                raw = activation_map(query_feat[b], masked, window)
                maps.append((raw - raw.min()) / (raw.max() - raw.min() + eps))
            shots.append(torch.stack(maps))
        nothing = query_feat[b].new_zeros(len(windows), *query_feat.shape[-2:])
        samples.append(torch.stack(shots).mean(0) if shots else nothing)
    return torch.stack(samples)


def dynamic_conv2d(x: Tensor, kernels: Tensor) -> Tensor:
    """Eq. 8: each sample has a depthwise convolution of its own."""
    padding = (kernels.shape[-2] // 2, kernels.shape[-1] // 2)
    return torch.stack(
        [
            F.conv2d(sample, ker[:, None], padding=padding, groups=len(sample))
            for sample, ker in zip(x, kernels, strict=True)
        ]
    )


def kernel_network(vectors: Tensor, network: nn.Module) -> Tensor:
    """Eq. 7, ``(N, C)`` to ``(N, C)``: the sums of two 1D convolutions, ReLU between, with a module's weights."""
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv1d)]
    for index, layer in enumerate(convolutions):
        if layer.bias is None:
            raise ValueError("a kernel network's convolutions have biases")
        half = layer.kernel_size[0] // 2
        outputs = []
        for n in range(len(vectors)):
            out = layer.bias
            for t in range(-half, half + 1):
                if 0 <= n + t < len(vectors):
                    out = out + layer.weight[:, :, t + half] @ vectors[n + t]
            outputs.append(out)
        vectors = torch.stack(outputs)
        if index < len(convolutions) - 1:
            vectors = vectors.clamp(min=0)
    return vectors


def dynamic_convolution(
    networks: dict[str, nn.Module], query_feat: Tensor, support_feat: Tensor, mask: Tensor, S: int, generation: str
) -> Tensor:
    """Eq. 5-8 and 11, ``(B, C, H, W)``, ``(B, K, C, Hs, Ws)``, ``(B, K, Hs, Ws)``: enhanced features, concatenated."""
    sides = {"vertical": (S, 1), "square": (S, S), "horizontal": (1, S)}
    samples = []
    for b in range(len(query_feat)):
        p_fg = foreground_vectors(support_feat[b], mask[b])  # N C
        p_s = F.adaptive_avg_pool1d(p_fg.T, S).T
        source = p_s if generation == "serial" else p_fg
        p_s2 = F.adaptive_avg_pool1d(source.T, S * S).T
        enhanced = []
        for branch, network in networks.items():
            ker = kernel_network(p_s2 if branch == "square" else p_s, network)  # N C
            ker = ker.reshape(*sides[branch], -1).permute(2, 0, 1)  # C kh kw
            enhanced.append(dynamic_conv2d(query_feat[b : b + 1], ker[None])[0])
        samples.append(torch.cat(enhanced))
    return torch.stack(samples)

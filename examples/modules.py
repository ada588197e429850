"""The three modules on random tensors, every shape printed. Runs in seconds.

python examples/modules.py
"""

import torch

from dpcn_modules import DCM, FFM, SAM, DCMInteraction
from dpcn_modules.functional import masked_average_pool

torch.manual_seed(0)
B, K, C, H, W = 2, 5, 64, 30, 30  # episodes, shots, channels, feature size


def show(name: str, tensor: torch.Tensor) -> None:
    """Print a tensor's name, shape and range."""
    print(f"{name:<28} {tuple(tensor.shape)!s:<22} {tensor.min():7.3f} .. {tensor.max():.3f}")


# Random stand-ins for a backbone's output: features of the query and of K supports, and the supports' masks.
query_feat, support_feat = torch.randn(B, C, H, W), torch.randn(B, K, C, H, W)
query_high, support_high = torch.randn(B, 2 * C, H, W), torch.randn(B, K, 2 * C, H, W)
support_masks = torch.zeros(B, K, 240, 240, dtype=torch.long)
support_masks[:, :, 60:180, 80:160] = 1

print("SAM: where does the query look like the masked support? (Eq. 1)")
sam = SAM(windows=((5, 1), (3, 3), (1, 5)))
activation_maps, pseudo_mask = sam(query_high, support_high, support_masks)
show("activation maps", activation_maps)
show("initial pseudo mask M0", pseudo_mask)

print("\nFFM: refine the pseudo mask by the prototype, and filter the query feature with it (Eq. 2-4)")
prototype = masked_average_pool(support_feat, support_masks)
filtered, refined_mask = FFM(C)(query_feat, prototype, pseudo_mask)
show("prototype", prototype)
show("refined pseudo mask Mr", refined_mask)
show("filtered query feature", filtered)

print("\nDCM: kernels from the support's foreground, convolved with the query (Eq. 5-8)")
dcm = DCM(C, kernel_size=5, generation="serial")
kernels = dcm.generator(support_feat, support_masks)  # once for a support set
enhanced = dcm.application(filtered, kernels)  # for any number of queries
for branch, kernel in zip(dcm.generator.branches, kernels, strict=True):
    show(f"{branch} kernels", kernel)
show("enhanced features", enhanced)

print("\nThe adapter for a model of your own: same shape in and out, identity until trained")
adapter = DCMInteraction(C)
show("query feature with the adapter", adapter(query_feat, support_feat, support_masks))
print("identity:", torch.equal(adapter(query_feat, support_feat, support_masks), query_feat))

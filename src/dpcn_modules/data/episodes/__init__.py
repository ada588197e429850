"""Episodes: their sampling, their tensors and batches, and the manifests that list them."""

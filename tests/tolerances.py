"""The one table of tolerances: how far a result may be from the right one, by what it was computed in."""

import torch

ABSOLUTE = {
    torch.float64: 1e-10,
    torch.float32: 1e-5,
    torch.float16: 1e-2,
    torch.bfloat16: 5e-2,
}

# A low-precision path may have this many times the error of the oracle run in that precision, and no more.
LOW_PRECISION_FACTOR = 2.0


def assert_close(actual: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype | None = None) -> None:
    """Compare to the table's tolerance for ``dtype`` (of ``actual`` if not given); relative where values exceed 1."""
    tolerance = ABSOLUTE[dtype or actual.dtype]
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance, check_dtype=False)


def error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest absolute difference, in double precision."""
    return float((actual.detach().double() - expected.detach().double()).abs().max())

# mypy: ignore-errors
"""The kernels of the backend "triton". Importing this needs Triton, so its neighbour does so on first use.

A plane is the ``(H, W)`` of one sample and channel. It is cut into strips of ROWS rows; a lane (a thread) computes one
column of one strip. Lanes lie side by side in reading order, strip after strip, so that neighbours read neighbours and
none is idle for ``W`` that are no power of two. What a lane reads, its window, stays in registers: ROWS outputs below
one another share most of it. A program is LANES such lanes (one warp: sums over it need no barrier), and takes the
tiles ``program_id(1)``, ``program_id(1) + num_programs(1)``, ... of its plane.

Capitals but for C, H and W are known when a kernel is compiled, and so are all tuples' lengths: every loop over
``static_range`` is unrolled. Sides are pairs ``(height, width)``.

Only what Triton's interpreter replaces is used here. It cannot call ``tl.sum``, ``tl.zeros`` or ``tl.cdiv`` where
another library imported Triton before the interpreter was switched on.
"""

import triton
import triton.language as tl

FLOAT32, FLOAT64 = tl.float32, tl.float64


@triton.jit(do_not_specialize=["x_stride", "C", "H", "W"])
def forward(
    x,
    kernels,
    outs,
    x_stride,
    C,
    H,
    W,
    SIDES: tl.constexpr,
    REACH: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """``outs[n] = x * kernels[n]`` for every n; REACH is the largest height and width of SIDES."""
    plane = tl.program_id(0)
    x += _offset(plane, C, H, W, x_stride)
    taps = ()
    for n in tl.static_range(len(SIDES)):
        taps += (_load_taps(kernels[n], plane, SIDES[n][0] * SIDES[n][1], False, DTYPE),)
    for start in range(tl.program_id(1) * LANES, (H + ROWS - 1) // ROWS * W, tl.num_programs(1) * LANES):
        lane = start + tl.arange(0, LANES)
        top, column = lane // W * ROWS, lane % W
        window = _load_window(x, top, column, H, W, REACH, ROWS, DTYPE)
        for n in tl.static_range(len(SIDES)):
            seen = _middle(window, REACH, SIDES[n], ROWS)
            totals = _correlate(_zeros(ROWS, LANES, DTYPE), taps[n], seen, SIDES[n], ROWS)
            _store_column(outs[n] + _offset(plane, C, H, W, C * H * W), totals, top, column, H, W, ROWS)


@triton.jit(do_not_specialize=["x_stride", "C", "H", "W"])
def backward(
    x,
    kernels,
    grads,
    grad_x,
    grad_taps,
    x_stride,
    grad_strides,
    C,
    H,
    W,
    SIDES: tl.constexpr,
    GRAD_SIDES: tl.constexpr,
    REACH: tl.constexpr,
    TAPS: tl.constexpr,
    NEED_X: tl.constexpr,
    NEED_TAPS: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """Both gradients over one read of ``x`` and of every ``grads[n]``.

    ``grad_x`` is the sum over n of ``grads[n]`` correlated with the turned ``kernels[n]``; ``grad_taps``
    ``(num_programs(1), B, C, TAPS)`` is the sum of ``grads[n]`` times the shifted ``x`` over the program's tiles, all n
    one after the other. GRAD_SIDES is SIDES, or where ``grad_x`` is not needed, ones.
    """
    plane = tl.program_id(0)
    x += _offset(plane, C, H, W, x_stride)
    taps, sums = (), ()
    for n in tl.static_range(len(SIDES)):
        if NEED_X:
            taps += (_load_taps(kernels[n], plane, SIDES[n][0] * SIDES[n][1], True, DTYPE),)
        if NEED_TAPS:
            sums += (_zeros(SIDES[n][0] * SIDES[n][1], LANES, DTYPE),)
    for start in range(tl.program_id(1) * LANES, (H + ROWS - 1) // ROWS * W, tl.num_programs(1) * LANES):
        lane = start + tl.arange(0, LANES)
        top, column = lane // W * ROWS, lane % W
        if NEED_TAPS:
            window = _load_window(x, top, column, H, W, REACH, ROWS, DTYPE)
        totals, new_sums = _zeros(ROWS, LANES, DTYPE), ()
        for n in tl.static_range(len(SIDES)):
            grad_plane = grads[n] + _offset(plane, C, H, W, grad_strides[n])
            grad = _load_window(grad_plane, top, column, H, W, GRAD_SIDES[n], ROWS, DTYPE)
            if NEED_X:
                totals = _correlate(totals, taps[n], grad, SIDES[n], ROWS)
            if NEED_TAPS:
                seen = _middle(window, REACH, SIDES[n], ROWS)
                at_outputs = _middle(grad, GRAD_SIDES[n], (1, 1), ROWS)
                new_sums += (_add_products(sums[n], at_outputs, seen, SIDES[n], ROWS),)
        if NEED_TAPS:
            sums = new_sums
        if NEED_X:
            _store_column(grad_x + _offset(plane, C, H, W, C * H * W), totals, top, column, H, W, ROWS)
    if NEED_TAPS:
        grad_taps += (tl.program_id(1) * tl.num_programs(0) + plane).to(tl.int64) * TAPS
        for n in tl.static_range(len(SIDES)):
            for t in tl.static_range(SIDES[n][0] * SIDES[n][1]):
                tl.store(grad_taps + t, tl.reduce(sums[n][t], 0, _add))
            grad_taps += SIDES[n][0] * SIDES[n][1]


@triton.jit
def _offset(plane, C, H, W, stride):
    """Where a plane begins: samples are ``stride`` apart, and the planes of one sample lie together."""
    return (plane // C).to(tl.int64) * stride + (plane % C).to(tl.int64) * (H * W)


@triton.jit
def _load_taps(kernels, plane, COUNT: tl.constexpr, TURNED: tl.constexpr, DTYPE: tl.constexpr):
    """A tuple of scalars, one kernel in reading order (backwards if TURNED)."""
    kernels += plane.to(tl.int64) * COUNT
    taps = ()
    for t in tl.static_range(COUNT):
        taps += (tl.load(kernels + (COUNT - 1 - t if TURNED else t)).to(DTYPE),)
    return taps


@triton.jit
def _load_window(plane, top, column, H, W, SIDES: tl.constexpr, ROWS: tl.constexpr, DTYPE: tl.constexpr):
    """What a kernel of these sides reaches from ROWS rows: ``ROWS + height - 1`` rows of ``width``, 0 outside."""
    window = ()
    for i in tl.static_range(ROWS + SIDES[0] - 1):
        y = top + (i - SIDES[0] // 2)
        middle = plane + (y * W + column)
        for j in tl.static_range(SIDES[1]):
            x = column + (j - SIDES[1] // 2)
            inside = (y >= 0) & (y < H) & (x >= 0) & (x < W)
            window += (tl.load(middle + (j - SIDES[1] // 2), mask=inside, other=0.0).to(DTYPE),)
    return window


@triton.jit
def _middle(window, REACH: tl.constexpr, SIDES: tl.constexpr, ROWS: tl.constexpr):
    """The window of a kernel of SIDES, out of that of REACH."""
    part = ()
    for i in tl.static_range(ROWS + SIDES[0] - 1):
        for j in tl.static_range(SIDES[1]):
            part += (window[(i + (REACH[0] - SIDES[0]) // 2) * REACH[1] + j + (REACH[1] - SIDES[1]) // 2],)
    return part


@triton.jit
def _correlate(totals, taps, window, SIDES: tl.constexpr, ROWS: tl.constexpr):
    """Add to ``totals``, one for each of ROWS rows, the taps times what they see there."""
    results = ()
    for r in tl.static_range(ROWS):
        total = totals[r]
        for i in tl.static_range(SIDES[0]):
            for j in tl.static_range(SIDES[1]):
                total += taps[i * SIDES[1] + j] * window[(r + i) * SIDES[1] + j]
        results += (total,)
    return results


@triton.jit
def _add_products(sums, grad, window, SIDES: tl.constexpr, ROWS: tl.constexpr):
    """Add to ``sums``, one for each tap, ``grad`` in ROWS rows times what the tap sees there."""
    results = ()
    for i in tl.static_range(SIDES[0]):
        for j in tl.static_range(SIDES[1]):
            total = sums[i * SIDES[1] + j]
            for r in tl.static_range(ROWS):
                total += grad[r] * window[(r + i) * SIDES[1] + j]
            results += (total,)
    return results


@triton.jit
def _store_column(plane, totals, top, column, H, W, ROWS: tl.constexpr):
    """Write ROWS results below one another, those that are inside."""
    for r in tl.static_range(ROWS):
        tl.store(plane + ((top + r) * W + column), totals[r], mask=top + r < H)


@triton.jit
def _zeros(COUNT: tl.constexpr, LANES: tl.constexpr, DTYPE: tl.constexpr):
    zeros = ()
    for _ in tl.static_range(COUNT):
        zeros += (tl.full((LANES,), 0.0, DTYPE),)
    return zeros


@triton.jit
def _add(a, b):
    return a + b

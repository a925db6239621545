"""Shapes that fit together, which every linear attention asks for before it takes a path: a kernel reads unchecked."""

from torch import Tensor


def check(q: Tensor, k: Tensor, v: Tensor, *, equal: str = "") -> None:
    """Raise a ValueError that names the first shape that does not fit (B, H, M, C), (B, H, N, C), (B, H, N, V).

    equal: what needs M = N, if anything does.
    """
    if not q.dim() == k.dim() == v.dim() == 4:
        raise ValueError(f"q, k, v must be (batch, heads, length, channels), not {q.dim()}-, {k.dim()}-, {v.dim()}-d")
    (batch, heads, queries, channels), of_k, of_v = q.shape, k.shape, v.shape
    if of_k[:2] != (batch, heads) or of_v[:2] != (batch, heads) or of_k[3] != channels or of_k[2] != of_v[2]:
        raise ValueError(f"q {tuple(q.shape)}, k {tuple(of_k)}, v {tuple(of_v)} do not fit together")
    if equal and queries != of_k[2]:
        raise ValueError(f"{equal} needs as many queries as keys, not {queries} and {of_k[2]}")


def check_convolution(v: Tensor, kernel: Tensor, bias: Tensor | None, grid: tuple[int, int]) -> None:
    """Raise a ValueError where a depthwise kernel does not keep the values (B, H, N, V) of a grid in place."""
    channels, size = v.shape[3], kernel.shape[-1]
    if min(grid) < 1 or grid[0] * grid[1] != v.shape[2]:
        raise ValueError(f"a grid of {grid[0]} x {grid[1]} does not hold {v.shape[2]} tokens")
    if kernel.shape != (channels, 1, size, size) or size % 2 == 0:
        raise ValueError(f"kernel must be ({channels}, 1, size, size) with an odd size, not {tuple(kernel.shape)}")
    if bias is not None and bias.shape != (channels,):
        raise ValueError(f"kernel_bias must be ({channels},), not {tuple(bias.shape)}")

"""Products with Monarch matrices: linear layers with n^1.5 instead of n^2 parameters.

y = monarch(x, w1, w2)                     # (..., k p) -> (..., s l)
w1, w2 = project(linear.weight)            # the nearest Monarch matrix
"""

import torch
from torch import Tensor

from zoo.kernels.dispatch import autocast_to, exporting, runs_triton
from zoo.kernels.monarch.reference import block_diagonal, dense, project

__all__ = ["block_diagonal", "dense", "monarch", "project"]


def monarch(x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    """y = M x for the Monarch matrix M of two block-diagonal factors, differentiable in all three.

    h[k,q] = sum_p w1[k,q,p] x[k,p]; h is read as (r, l); y[s,l] = sum_r w2[l,s,r] h[r,l] (arXiv 2310.12109).

    Args:
        x: (..., k p).
        w1: (k, q, p) and w2: (l, s, r), with l r = k q.
    Returns:
        (..., s l), the index of s first. Under autocast in its dtype.
    Raises:
        ValueError: shapes that do not fit.
    """
    if w1.ndim != 3 or w2.ndim != 3 or w1.shape[0] * w1.shape[1] != w2.shape[0] * w2.shape[2]:
        raise ValueError(f"monarch: w1 {tuple(w1.shape)} and w2 {tuple(w2.shape)} do not fit: k q must equal l r")
    if x.shape[-1] != w1.shape[0] * w1.shape[2]:
        raise ValueError(f"monarch: x has {x.shape[-1]} features, w1 expects {w1.shape[0] * w1.shape[2]}")
    x, w1, w2 = autocast_to(x, w1, w2)
    flat = x.reshape(-1, x.shape[-1])
    y = torch.ops.zoo.monarch(flat, w1, w2)[0] if runs_triton(x, w1, w2) and not exporting() else _aten(flat, w1, w2)[0]
    return y.reshape(*x.shape[:-1], y.shape[-1])


def _aten(x: Tensor, w1: Tensor, w2: Tensor) -> tuple[Tensor, Tensor]:
    """Two batched products that read strides as they are; in 16 bits they want columns that lie side by side."""
    (blocks, width, inner), (lanes, out, reach) = w1.shape, w2.shape
    batch = x.shape[0]
    columns = (x.t().contiguous() if x.itemsize == 2 else x.t()).view(blocks, inner, batch)
    hidden = torch.bmm(w1, columns)  # [k, q, B], read as [r, l, B]
    written = hidden.view(blocks * width, batch).t()
    read = hidden.view(reach, lanes, batch).transpose(0, 1)
    if x.itemsize == 4:
        y = torch.bmm(read.transpose(1, 2), w2.transpose(1, 2))  # [l, B, s]
        return y.permute(1, 2, 0).reshape(batch, out * lanes), written
    y = torch.bmm(w2, read.contiguous() if x.itemsize == 2 else read)  # [l, s, B]
    return y.permute(2, 1, 0).reshape(batch, out * lanes), written


@torch.library.custom_op("zoo::monarch", mutates_args=())
def _monarch(x: Tensor, w1: Tensor, w2: Tensor) -> tuple[Tensor, Tensor]:
    if runs_triton(x, w1, w2):
        from zoo.kernels.monarch import triton

        return triton.forward(x, w1, w2)
    y, hidden = _aten(x, w1, w2)
    return y.contiguous(), hidden.contiguous()


@_monarch.register_fake
def _(x: Tensor, w1: Tensor, w2: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], w2.shape[0] * w2.shape[1]), x.new_empty(x.shape[0], w1.shape[0] * w1.shape[1])


@torch.library.custom_op("zoo::monarch_backward", mutates_args=())
def _monarch_backward(grad: Tensor, x: Tensor, hidden: Tensor, w1: Tensor, w2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if runs_triton(grad, x, w1, w2):
        from zoo.kernels.monarch import triton

        return triton.backward(grad, x, hidden, w1, w2)
    (blocks, width, inner), (lanes, out, reach) = w1.shape, w2.shape
    batch = x.shape[0]
    dys = grad.reshape(batch, out, lanes).permute(2, 0, 1)
    read = hidden.view(batch, reach, lanes).permute(2, 0, 1)
    dh = torch.bmm(dys, w2).permute(1, 2, 0).reshape(batch, blocks, width).transpose(0, 1)
    dw1 = torch.bmm(dh.transpose(1, 2), x.reshape(batch, blocks, inner).transpose(0, 1))
    dx = torch.bmm(dh, w1).transpose(0, 1).reshape(x.shape)
    return dx, dw1, torch.bmm(dys.transpose(1, 2), read)


@_monarch_backward.register_fake
def _(grad: Tensor, x: Tensor, hidden: Tensor, w1: Tensor, w2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), w1.new_empty(w1.shape), w2.new_empty(w2.shape)


def _save(ctx, inputs, output) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(inputs[0], output[1], *inputs[1:])


def _backward(ctx, grad: Tensor, _):
    return torch.ops.zoo.monarch_backward(grad, *ctx.saved_tensors)


_monarch.register_autograd(_backward, setup_context=_save)

"""The Triton attention kernels in the interpreter: forward and every gradient against the reference in float64.

    TRITON_INTERPRET=1 pytest tests/kernels/interpret_attention.py

Every launch runs inside guard bands: inputs lie in NaN, outputs start as NaN between sentinels.
"""

import pytest
import torch
from torch import Tensor

from tests.kernels.harness import GuardBands, close
from zoo.kernels.attention import attention, attention_varlen, choice, launch, merge
from zoo.kernels.attention.masks import Masks
from zoo.kernels.attention.op import attention_backward_op, attention_op
from zoo.kernels.attention.reference import attention_backward_reference, attention_reference


def check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    masks: Masks,
    tolerance: float = 2e-5,
    unified_max: float | None = None,
) -> None:
    """Outputs and gradients of the kernel against the closed form in float64, with gradients through o and lse."""
    scale = q.shape[-1] ** -0.5
    tensors = (masks.key_lengths, masks.block_mask, masks.cu_queries, masks.cu_keys)
    settings = (scale, masks.window, masks.block_size, masks.longest)
    visible = masks.visible(q.shape[2], k.shape[2])
    exact = [x.double() for x in (q, k, v)]
    want_o, want_lse = attention_reference(*exact, bias=bias, visible=visible, scale=scale)
    with GuardBands() as guard:
        inside = [guard.input(x) for x in (q, k, v)]
        bias_inside = None if bias is None else guard.input(bias)
        tensors = tuple(None if x is None else guard.input(x) for x in tensors)
        o, lse = attention_op(*inside, bias_inside, *tensors, *settings, unified_max)
        guard.check(o, lse)
        close(o, want_o, tolerance=tolerance, name="o")
        close(lse, want_lse, tolerance=tolerance, name="lse")
        do, dlse = torch.randn(o.shape).to(o.dtype), torch.randn(lse.shape)
        given = (guard.input(do), guard.input(dlse), *inside, o, lse, bias_inside, *tensors)
        grads = attention_backward_op(*given, *settings, bias is not None)
        guard.check(*grads)
    *want, ds = attention_backward_reference(
        do.double(), dlse.double(), *exact, want_o, want_lse, bias=bias, visible=visible, scale=scale
    )
    names = ("dq", "dk", "dv", "dbias")
    wanted = [*want, ds.sum_to_size(bias.shape) if bias is not None else torch.empty(0)]
    for name, grad, its_want in zip(names, grads, wanted):
        close(grad.double(), its_want.double(), tolerance=10 * tolerance, name=name)


def qkv(*, heads=(2, 2), lengths=(70, 90), channels=(32, 32), batch=2, dtype=torch.float32) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = (
        (heads[0], lengths[0], channels[0]),
        (heads[1], lengths[1], channels[0]),
        (heads[1], lengths[1], channels[1]),
    )
    return [torch.randn(batch, *shape, dtype=dtype) for shape in shapes]


@pytest.mark.parametrize("lengths", [(1, 1), (1, 33), (17, 63), (65, 129), (100, 31), (0, 5), (5, 0)], ids=str)
@pytest.mark.parametrize("window", [(-1, -1), (-1, 0), (20, 3), (0, -1)], ids=str)
def test_lengths_and_windows(lengths, window):
    check(*qkv(lengths=lengths, batch=1), None, Masks(window))


@pytest.mark.parametrize(
    "channels", [(1, 1), (16, 16), (40, 40), (72, 72), (80, 80), (104, 104), (256, 256), (64, 24), (20, 96)], ids=str
)
def test_channels(channels):
    check(*qkv(lengths=(33, 70), channels=channels, batch=1, heads=(2, 1)), None, Masks((-1, 0)))


@pytest.mark.parametrize(
    "shape",
    [(2, 4, 40, 50), (1, 4, 40, 50), (2, 1, 40, 50), (1, 1, 40, 50), (2, 1, 1, 50), (1, 4, 40, 1), (1, 1, 1, 1)],
    ids=str,
)
def test_bias_of_any_broadcast_shape(shape):
    check(*qkv(heads=(4, 2), lengths=(40, 50)), torch.randn(shape), Masks((-1, 0)))


def test_bias_shared_by_many_windows():
    check(*qkv(heads=(3, 3), lengths=(9, 9), batch=40), torch.randn(1, 3, 9, 9), Masks())


def test_bias_of_minus_infinity_hides():
    bias = torch.randn(1, 2, 40, 50).masked_fill(torch.rand(1, 2, 40, 50) < 0.5, -torch.inf)
    bias[..., 7, :] = -torch.inf
    check(*qkv(lengths=(40, 50)), bias, Masks())


@pytest.mark.parametrize("lengths", [(90, 17), (0, 64), (31, 200)], ids=str)
@pytest.mark.parametrize("window", [(-1, -1), (-1, 0), (5, 5)], ids=str)
def test_key_lengths_and_what_lies_behind_them(lengths, window):
    q, k, v = qkv()
    for index, length in enumerate(lengths):
        k[index, :, length:] = v[index, :, length:] = torch.nan
    clean = [q, k.nan_to_num(), v.nan_to_num()]
    masks = Masks(window, key_lengths=torch.tensor(lengths))
    check(*clean, None, masks)
    poisoned, whole = (attention(*x, window=window, key_lengths=masks.key_lengths) for x in ((q, k, v), clean))
    assert torch.equal(poisoned, whole)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_lengths_that_do_not_lie_behind_each_other(dtype):
    """A column of a table, one number for all, and bounds with other numbers between them."""
    q, k, v = qkv()
    check(q, k, v, None, Masks(key_lengths=torch.tensor([[30, 900], [0, 900]], dtype=dtype)[:, 0]))
    one = torch.tensor([41], dtype=dtype)
    for_all, each = (attention(q, k, v, key_lengths=lengths) for lengths in (one.expand(2), one.repeat(2)))
    assert torch.equal(for_all, each)
    bounds = torch.tensor([[0, 900], [20, 900], [53, 900]], dtype=dtype)[:, 0]
    q, k, v = (torch.randn(53, 2, 32) for _ in "qkv")
    packed, apart = (attention_varlen(q, k, v, x, x, max_seqlen_q=33) for x in (bounds, bounds.int().contiguous()))
    assert torch.equal(packed, apart)


@pytest.mark.parametrize(("block_size", "heads"), [((16, 16), 1), ((64, 64), 2), ((7, 13), 1), ((1, 30), 2)])
@pytest.mark.parametrize("window", [(-1, -1), (-1, 0)], ids=str)
def test_block_masks(block_size, heads, window):
    tiles = [-(-length // size) for length, size in zip((70, 90), block_size)]
    torch.manual_seed(1)
    blocks = torch.rand(2, heads, *tiles) < 0.4
    blocks[0, 0, 0] = False
    check(*qkv(heads=(2, 1)), None, Masks(window, block_mask=blocks, block_size=block_size))


def test_block_mask_with_bias_and_key_lengths():
    blocks = torch.rand(1, 1, 5, 6) < 0.5
    masks = Masks((-1, 0), torch.tensor([80, 50]), blocks, (16, 16))
    check(*qkv(), torch.randn(1, 2, 70, 90), masks)


@pytest.mark.parametrize("window", [(-1, -1), (-1, 0), (9, 2)], ids=str)
def test_packed_sequences(window):
    torch.manual_seed(0)
    cu_q, cu_k = torch.tensor([0, 70, 70, 71, 100]).int(), torch.tensor([0, 90, 99, 99, 120]).int()
    q, k, v = (torch.randn(1, heads, n, 32) for heads, n in ((4, 100), (2, 120), (2, 120)))
    check(q, k, v, None, Masks(window, cu_queries=cu_q, cu_keys=cu_k, longest=70))


def test_packed_result_has_the_layout_of_its_input():
    cu = torch.tensor([0, 5, 12]).int()
    q = torch.randn(12, 2, 16, requires_grad=True)
    o, lse = attention_varlen(q, q, q, cu, cu, return_lse=True)
    assert o.shape == q.shape
    assert o.is_contiguous()
    assert lse.shape == (12, 2)


@pytest.mark.parametrize(
    ("heads", "queries", "window"),
    [((4, 1), 1, (-1, -1)), ((4, 1), 1, (-1, 0)), ((2, 2), 1, (200, -1)), ((2, 1), 3, (-1, 0))],
    ids=str,
)
def test_few_queries_split_the_keys(heads, queries, window):
    assert choice.splits_for(2, 400, 32, 132) > 1
    check(*qkv(heads=heads, lengths=(queries, 400), batch=1), torch.randn(1, 1, queries, 400), Masks(window))
    check(*qkv(heads=heads, lengths=(queries, 400), batch=1), None, Masks(window))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize(
    "masks", [Masks(), Masks((-1, 0)), Masks((20, 3), torch.tensor([17]))], ids=["all", "causal", "window"]
)
def test_liberties_of_sm_100(masks, dtype, monkeypatch):
    """Lazy rescaling and polynomial exponentials, with scores that rise by more and by less than the threshold."""
    monkeypatch.setattr(launch, "machine_of", lambda device: "sm_100")
    monkeypatch.setattr(choice, "liberties", lambda *_: {"LAZY": True, "SOFT": dtype == torch.float16})
    q, k, v = qkv(lengths=(70, 200), batch=1)
    k = k * torch.linspace(0.1, 6, 200)[:, None]
    check(q.to(dtype), k.to(dtype), v.to(dtype), None, masks, tolerance=2e-5 if dtype == torch.float32 else 4e-3)


FAR_OFF = pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
"""NumPy, in which the interpreter computes, warns of what the kernel goes by: a sum that left its range."""


@FAR_OFF
@pytest.mark.parametrize("phi", [-300.0, 3.0, 300.0])
@pytest.mark.parametrize(
    ("lengths", "masks"),
    [
        ((1, 150), Masks()),
        ((3, 150), Masks((-1, 0), key_lengths=torch.tensor([147]))),
        ((40, 50), Masks((20, 3))),
        ((40, 50), Masks(block_mask=torch.tensor([[[[1, 0], [0, 0], [1, 1]]]]).bool(), block_size=(16, 32))),
    ],
    ids=["one query", "causal", "window", "blocks"],
)
def test_a_unified_maximum_changes_no_result(phi, lengths, masks):
    check(*qkv(lengths=lengths, batch=1, heads=(4, 2)), None, masks, unified_max=phi)


@FAR_OFF
def test_a_score_far_above_the_unified_maximum_is_that_rows_alone():
    q, k, v = qkv(lengths=(40, 90), batch=1)
    bias = torch.randn(1, 2, 40, 90)
    bias[0, 1, 7, 80], bias[0, 0, 3] = 200, -200
    check(q, k, v, bias, Masks(), unified_max=0.0)


@FAR_OFF
def test_the_running_maximum_is_taken_only_where_the_unified_one_is_far_off():
    q, k, v = qkv(lengths=(1, 150))
    running, near, far = (attention(q, k, v, unified_max=phi) for phi in (None, 7.3, 300.0))
    assert torch.equal(running, far)
    assert not torch.equal(running, near)


@FAR_OFF
@pytest.mark.parametrize("phi", [-30.0, 2.0, 30.0])
def test_a_unified_maximum_in_half_precision(phi):
    check(*qkv(lengths=(3, 150), dtype=torch.float16), None, Masks(), tolerance=3e-3, unified_max=phi)


@FAR_OFF
@pytest.mark.parametrize("phi", [12.5, 13.5, 13.9])
def test_a_unified_maximum_leaves_small_addends_their_digits_in_half_precision(phi):
    """Scores 0 of many keys, so that the sum is in range where its addends have lost digits."""
    q, k, v = torch.zeros(1, 1, 1, 16).half(), torch.zeros(1, 1, 4096, 16).half(), torch.ones(1, 1, 4096, 16).half()
    tiles = torch.ones(1, 1, dtype=torch.bool)
    o = attention(q, k, v, block_mask=tiles, block_size=(1, 4096), unified_max=phi)
    close(o, torch.ones(o.shape), tolerance=1e-3)


@FAR_OFF
def test_sums_under_a_unified_maximum_leave_room_for_values():
    q, k, v = torch.zeros(1, 1, 1, 16), torch.zeros(1, 1, 40, 16), torch.full((1, 1, 40, 16), 1e7)
    close(attention(q, k, v, unified_max=-70.0), v[:, :, :1])


def test_half_precision():
    check(*qkv(dtype=torch.float16), None, Masks((-1, 0)), tolerance=3e-3)


def test_reads_a_packed_projection_without_a_copy():
    """q, k, v as views of (B, N, 3, H, D) give the bits of contiguous copies, and o lies as (B, N, H, D)."""
    packed = torch.randn(2, 37, 3, 4, 24, requires_grad=True)
    views = packed.permute(2, 0, 3, 1, 4).unbind(0)
    copies = [x.detach().contiguous().requires_grad_() for x in views]
    o, again = attention(*views), attention(*copies)
    assert torch.equal(o, again)
    assert o.transpose(1, 2).is_contiguous()
    (packed_grad,) = torch.autograd.grad(o.square().sum(), packed)
    grads = torch.autograd.grad(again.square().sum(), copies)
    assert torch.equal(packed_grad, torch.stack(grads).permute(1, 3, 0, 2, 4))


def test_two_runs_give_the_same_bits():
    bias = torch.randn(1, 2, 70, 90, requires_grad=True)
    variables = [x.requires_grad_() for x in qkv()]

    def run() -> list[Tensor]:
        o, lse = attention(*variables, bias, return_lse=True)
        return [o, lse, *torch.autograd.grad(o.square().sum() + lse.sum(), [*variables, bias])]

    assert all(torch.equal(a, b) for a, b in zip(run(), run()))


def test_merged_parts_are_the_whole_and_so_are_their_gradients():
    q, k, v = (x.requires_grad_() for x in qkv())
    parts = [attention(q, k[:, :, a:b], v[:, :, a:b], return_lse=True) for a, b in ((0, 30), (30, 31), (31, 90))]
    merged, whole = merge(parts), attention(q, k, v, return_lse=True)
    for a, b in zip(merged, whole):
        close(a, b)
    for a, b in zip(
        *(torch.autograd.grad(o.square().sum() + lse.square().sum(), (q, k, v)) for o, lse in (merged, whole))
    ):
        close(a, b, tolerance=1e-4)


def test_opcheck_of_the_kernel():
    variables = [x.requires_grad_() for x in qkv(lengths=(9, 13), batch=1)]
    bias = torch.randn(1, 2, 9, 13, requires_grad=True)
    torch.library.opcheck(attention_op, (*variables, bias, *[None] * 4, 0.3, (-1, 0), (1, 1), 0, 2.0))

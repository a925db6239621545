"""The same on a CPU: products with the probed rows where they lie, without a gathered copy of them."""

import warnings
from functools import cache

import torch
from torch import Tensor

CLUSTERS = 8
"""Clusters gathered at a time where rows have to be widened first, so that they stay in the cache."""
DENSE = 3
"""From this many reads of every row on, one product with all rows is cheaper."""


def probed_logits(hidden: Tensor, rows: Tensor, probes: Tensor) -> Tensor:
    """hidden (T, D), rows (C, R, D), probes (T, P) clusters -> (T, P, R) in float32 or wider."""
    if rows.dtype not in (torch.float32, torch.float64):
        return _widened(hidden, rows, probes)
    if probes.numel() >= DENSE * len(rows):
        return _dense(hidden, rows, probes)
    return _sampled(hidden, rows, probes)


def _sampled(hidden: Tensor, rows: Tensor, probes: Tensor) -> Tensor:
    """The probed entries of hidden @ rows^T, as a sparse matrix with P R entries in each row."""
    _silence_beta_warning()
    (clusters, size, dim), (tokens, count) = rows.shape, probes.shape
    columns = (probes[:, :, None] * size + torch.arange(size, device=rows.device)).reshape(-1)
    starts = torch.arange(tokens + 1, device=rows.device) * count * size
    values = torch.zeros(len(columns), dtype=rows.dtype, device=rows.device)
    places = torch.sparse_csr_tensor(starts, columns, values, size=(tokens, clusters * size), check_invariants=False)
    found = torch.sparse.sampled_addmm(places, hidden, rows.view(-1, dim).t(), beta=0.0)
    return found.values().view(tokens, count, size)


@cache
def _silence_beta_warning() -> None:
    """PyTorch warns once that sparse CSR tensors are in beta."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor(torch.tensor([0, 0]), torch.tensor([]).long(), torch.tensor([]), size=(1, 1))


def _dense(hidden: Tensor, rows: Tensor, probes: Tensor) -> Tensor:
    clusters, size, dim = rows.shape
    flat = rows.view(-1, dim).t()
    parts = []
    for h, p in zip(hidden.split(64), probes.split(64)):
        parts.append((h @ flat).view(len(h), clusters, size).gather(1, p[..., None].expand(-1, -1, size)))
    return torch.cat(parts)


def _widened(hidden: Tensor, rows: Tensor, probes: Tensor) -> Tensor:
    (_, size, dim), (tokens, count) = rows.shape, probes.shape
    hidden = hidden.float()
    logits = torch.empty(tokens, count, size, device=rows.device)
    for token in range(tokens):
        for first in range(0, count, CLUSTERS):
            some = rows.index_select(0, probes[token, first : first + CLUSTERS]).float()
            logits[token, first : first + CLUSTERS] = (some.view(-1, dim) @ hidden[token]).view(-1, size)
    return logits

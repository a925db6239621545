"""Attention whose cost grows linearly with the tokens: SLAB's, BASED's Taylor polynomial, Scatterbrain.

On a GPU SLAB's and BASED's are fused, forward and backward (triton.py); everything else, and every exported graph, runs
on PyTorch's own operations. reference.py is the mathematics.
"""

from zoo.kernels.linear.buckets import bucketed_scatterbrain_attention, equal_norms, hash_orders
from zoo.kernels.linear.chunks import taylor_features
from zoo.kernels.linear.scatterbrain import PerformerFeatures, performer_features, scatterbrain_attention
from zoo.kernels.linear.simplified import linear_attention, simplified_linear_attention
from zoo.kernels.linear.taylor import taylor_attention

__all__ = [
    "PerformerFeatures",
    "bucketed_scatterbrain_attention",
    "equal_norms",
    "hash_orders",
    "linear_attention",
    "performer_features",
    "scatterbrain_attention",
    "simplified_linear_attention",
    "taylor_attention",
    "taylor_features",
]

"""Fused operations: a reference in plain PyTorch, a Triton kernel, and one public function each.

>>> from zoo import kernels
>>> kernels.cost("max_similarity", {"batch": 64, "positions": 197, "features": 512, "concepts": 312}).bound
'arithmetic'
"""

from zoo.kernels.floors import cost

__all__ = ["cost"]

"""Patterns that decide which keys are worth attending to: LVSA, ZipVL, Re-ttention."""

from zoo.kernels.sparse_patterns.lvsa import LvsaPattern, lvsa_pattern
from zoo.kernels.sparse_patterns.rettention import Statistics, reshaped_attention, statistics
from zoo.kernels.sparse_patterns.zipvl import ZipvlScores, key_scores, keys_for

__all__ = [
    "LvsaPattern",
    "Statistics",
    "ZipvlScores",
    "key_scores",
    "keys_for",
    "lvsa_pattern",
    "reshaped_attention",
    "statistics",
]

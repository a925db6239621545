"""Which keys a query sees."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Masks:
    """Everything that hides keys from queries; conditions add up.

    window (left, right): -left <= j - (i + N - M) <= right for query i of M and key j of N, so that the last query
    stands on the last key; -1 is open, causal is (-1, 0).
    key_lengths (B,): keys at or beyond it are hidden.
    block_mask (B or 1, H or 1, rows, columns) bool with block_size (queries, keys per tile): false hides a tile.
    cu_queries, cu_keys (sequences + 1,) int32: bounds of sequences packed behind each other, which do not see one
    another and stand in the window each for itself; longest: queries of the longest one.
    """

    window: tuple[int, int] = (-1, -1)
    key_lengths: Tensor | None = None
    block_mask: Tensor | None = None
    block_size: tuple[int, int] = (1, 1)
    cu_queries: Tensor | None = None
    cu_keys: Tensor | None = None
    longest: int = 0

    @property
    def hides_nothing(self) -> bool:
        return self.window == (-1, -1) and self.only_window

    @property
    def only_window(self) -> bool:
        return self.key_lengths is None and self.block_mask is None and self.cu_queries is None

    def visible(self, queries: int, keys: int, device: torch.device | None = None) -> Tensor | None:
        """bool, broadcasts to (B, H, queries, keys); None where every key is seen."""
        if self.hides_nothing:
            return None
        rows = torch.arange(queries, device=device)[:, None]
        columns = torch.arange(keys, device=device)
        offset = columns - (rows + keys - queries)
        seen = torch.ones(1, 1, dtype=torch.bool, device=device)
        if self.cu_queries is not None and self.cu_keys is not None:
            sequence_of_row = torch.bucketize(rows, self.cu_queries[1:], right=True)
            sequence_of_column = torch.bucketize(columns, self.cu_keys[1:], right=True)
            seen = sequence_of_row == sequence_of_column
            from_last_query = rows - self.cu_queries[1:][sequence_of_row]
            offset = columns - self.cu_keys[1:][sequence_of_column] - from_last_query
        left, right = self.window
        if left >= 0:
            seen = seen & (offset >= -left)
        if right >= 0:
            seen = seen & (offset <= right)
        if self.key_lengths is not None:
            seen = seen & (columns < self.key_lengths[:, None, None, None])
        if self.block_mask is not None:
            seen = seen & self.block_mask[..., rows // self.block_size[0], columns // self.block_size[1]]
        return seen

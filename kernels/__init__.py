"""Fused operations: a reference in plain PyTorch, a Triton kernel, and one public function each."""

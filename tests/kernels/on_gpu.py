"""A pytest plugin that makes every tensor of the tests on the GPU.

pytest -p tests.kernels.on_gpu tests/kernels/interpret_*.py
"""

import torch

torch.set_default_device("cuda")

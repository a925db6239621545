"""Tests reach no network, share no cache with the user, and leave the cores to each other."""

import os
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["ZOO_HOME"] = tempfile.mkdtemp(prefix="zoo-home-")

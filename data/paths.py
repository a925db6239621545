"""Where the zoo keeps what it can make or fetch again."""

import os
import sys
from pathlib import Path


def zoo_home() -> Path:
    """The cache folder: the environment variable ZOO_HOME, or the platform's usual place; it need not exist yet."""
    if named := os.environ.get("ZOO_HOME"):
        return Path(named).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "bottleneck-zoo"

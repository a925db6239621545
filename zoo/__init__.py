"""The Bottleneck Zoo: vision models whose bottleneck you can name.

Importing `zoo` loads no torch; `zoo.load`, `zoo.create_model` and `zoo.list_models` import what they need when called.
"""

from pathlib import Path as _Path
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["__version__", "create_model", "list_models", "load"]

# In a checkout the sub-packages lie beside this folder (models/, data/, ...), and Python started in the root finds this
# folder before the installed mapping of pyproject.toml.
_root = _Path(__file__).resolve().parent.parent
if (_root / "models" / "contract.py").is_file() and (_root / "kernels" / "__init__.py").is_file():
    __path__.append(str(_root))

if TYPE_CHECKING:
    from zoo.artifact import load
    from zoo.build import create_model
    from zoo.catalogue import list_models


def __getattr__(name: str):
    from importlib import import_module

    homes = {"load": "zoo.artifact", "create_model": "zoo.build", "list_models": "zoo.catalogue"}
    if name in homes:
        return getattr(import_module(homes[name]), name)
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")

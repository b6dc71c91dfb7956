"""Fine-tune language models: load, encode, train, evaluate, compare.

The names are handed on lazily (PEP 562): a room is imported when one of its names is first used.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# Bound now (it is light), and after the room of the same name, which would hide it: later imports
# from the room find it loaded, and leave this name alone.
from ftkit.export.formats import export as export  # noqa: E402

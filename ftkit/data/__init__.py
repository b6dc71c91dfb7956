"""From any file to rows, and from rows to batches: formats, columns, splits, leaks, batches."""

import lazy_loader

from ftkit.paths import bundled, bundled_names

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["bundled", "bundled_names"]

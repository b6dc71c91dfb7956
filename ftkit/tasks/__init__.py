"""One class a task: what a row holds, how it is encoded, which head, which metric."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

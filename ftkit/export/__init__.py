"""Write a saved model in another format, load that again with another reader, and compare."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

from .formats import FORMATS as FORMATS
from .formats import GGUF_TYPES as GGUF_TYPES
from .formats import export as export
from .proof import Bounds as Bounds
from .proof import Proof as Proof
from .proof import prove as prove
from .source import Source as Source
from .source import open_model as open_model

import pathlib

from .annotated import parse_conll as parse_conll
from .annotated import parse_squad as parse_squad
from .batches import Batch as Batch
from .batches import check_encoded as check_encoded
from .batches import collate as collate
from .batches import epoch_order as epoch_order
from .batches import length_order as length_order
from .batches import micro_batches as micro_batches
from .batches import row_lengths as row_lengths
from .batches import step_seed as step_seed
from .columns import check_column as check_column
from .columns import check_texts as check_texts
from .columns import guess_label_column as guess_label_column
from .columns import guess_text_columns as guess_text_columns
from .columns import label_names as label_names
from .columns import with_column as with_column
from .columns import with_label_names as with_label_names
from .files import read_table as read_table
from .inspection import Inspection as Inspection
from .inspection import inspect as inspect
from .leaks import LeakWarning as LeakWarning
from .leaks import find_leaks as find_leaks
from .leaks import remove_leaks as remove_leaks
from .leaks import warn_leaks as warn_leaks
from .packing import pack as pack
from .splits import load_splits as load_splits
from .splits import row_name as row_name
from .splits import split_rows as split_rows

def bundled(name: str = "") -> pathlib.Path: ...
def bundled_names() -> list[str]: ...

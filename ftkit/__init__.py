"""Fine-tune language models: load, encode, train, evaluate, compare."""

from ftkit.checkpoints import CheckpointWarning
from ftkit.comparison import Comparison, compare
from ftkit.config import TrainingConfig
from ftkit.data import load_splits, split_rows
from ftkit.errors import FtkitError, StoppedError
from ftkit.estimation import Estimate, estimate
from ftkit.evaluation import Report, evaluate, predict
from ftkit.history import History, train
from ftkit.leaks import LeakWarning, find_leaks, remove_leaks
from ftkit.models import load_pretrained
from ftkit.parameters import (
    add_lora,
    count_parameters,
    merge_lora,
    parameter_groups,
    set_trainable,
)
from ftkit.saving import load_saved, save_pretrained
from ftkit.tasks import (
    CausalLM,
    MaskedLM,
    QuestionAnswering,
    Seq2Seq,
    SequenceClassification,
    TokenClassification,
)
from ftkit.training import Step, TrainingRun

__version__ = "0.1.0"
__all__ = [
    "CausalLM",
    "CheckpointWarning",
    "Comparison",
    "Estimate",
    "FtkitError",
    "History",
    "LeakWarning",
    "MaskedLM",
    "QuestionAnswering",
    "Report",
    "Seq2Seq",
    "SequenceClassification",
    "Step",
    "StoppedError",
    "TokenClassification",
    "TrainingConfig",
    "TrainingRun",
    "add_lora",
    "compare",
    "count_parameters",
    "estimate",
    "evaluate",
    "find_leaks",
    "load_pretrained",
    "load_saved",
    "load_splits",
    "merge_lora",
    "parameter_groups",
    "predict",
    "remove_leaks",
    "save_pretrained",
    "set_trainable",
    "split_rows",
    "train",
]

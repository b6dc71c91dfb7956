"""The tasks' names, for whoever wants them before torch is loaded."""

TASK_NAMES = (
    "causal-lm",
    "masked-lm",
    "question-answering",
    "seq2seq",
    "sequence-classification",
    "token-classification",
)

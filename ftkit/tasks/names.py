"""The tasks' names, for whoever wants them before torch is loaded."""

TASK_NAMES = (
    "causal-lm",
    "chat",
    "masked-lm",
    "preference",
    "question-answering",
    "seq2seq",
    "sequence-classification",
    "token-classification",
)

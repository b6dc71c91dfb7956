"""All tasks by name, and the one that a data set's columns are made for."""

from typing import Any

from datasets import DatasetDict

from ftkit.errors import FtkitError, closest
from ftkit.tasks.base import Task, train_split
from ftkit.tasks.chat import Chat
from ftkit.tasks.classification import SequenceClassification
from ftkit.tasks.language_modeling import CausalLM
from ftkit.tasks.masked import MaskedLM
from ftkit.tasks.preference import Preference
from ftkit.tasks.question_answering import QuestionAnswering
from ftkit.tasks.seq2seq import Seq2Seq
from ftkit.tasks.token_classification import TokenClassification

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        SequenceClassification,
        Chat,
        Preference,
        CausalLM,
        MaskedLM,
        QuestionAnswering,
        Seq2Seq,
        TokenClassification,
    )
}


def find_task(name: str | None, splits: DatasetDict) -> type[Task]:
    """Return the task of this name; without a name, the one that the columns are made for.

    Raises
    ------
    FtkitError
        No such task. The message names the closest one.
    """
    if name is None:
        columns = train_split(splits).column_names
        return next((t for t in TASKS.values() if t.recognises(columns)), SequenceClassification)
    if name not in TASKS:
        raise FtkitError(f'Unknown task "{name}". {closest(name, TASKS)}')
    return TASKS[name]


def task_from_dict(values: dict[str, Any]) -> Task:
    """Make a task of what its `to_dict` gave."""
    options = dict(values)
    name = options.pop("name", "")
    if name not in TASKS:
        raise FtkitError(f'Unknown task "{name}". {closest(name, TASKS)}')
    fields: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in options.items()
    }
    return TASKS[name](**fields)

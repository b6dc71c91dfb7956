"""Conversations as people store them, turned into lists of messages, with every fault told."""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset, DatasetDict

from ftkit.data.splits import row_name
from ftkit.errors import FtkitError, closest, raise_problems

Message = dict[str, str]  # role and content
ROLES = ("system", "user", "assistant")
SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "assistant": "assistant",
}
FORMS = {  # name: the columns by which it is recognised
    "messages": ("messages",),
    "ShareGPT": ("conversations",),
    "Alpaca": ("instruction", "output"),
    "prompt and completion": ("prompt", "completion"),
}


def find_form(columns: Sequence[str]) -> str | None:
    """Return the name of the form that a data set's columns show; None where it is none of them.

    Examples
    --------
    >>> find_form(["instruction", "input", "output"])
    'Alpaca'
    """
    return next((form for form, names in FORMS.items() if set(names) <= set(columns)), None)


def to_messages(row: dict[str, Any], form: str) -> list[Message]:
    """Return a row as a list of messages, each with ``role`` and ``content``.

    Parameters
    ----------
    row : dict
    form : str
        A name of `FORMS`.

    Raises
    ------
    FtkitError
        It is not of that form; the message does not say which row.

    Examples
    --------
    >>> to_messages({"instruction": "Add.", "input": "1, 2", "output": "3"}, "Alpaca")[0]
    {'role': 'user', 'content': 'Add.\\n\\n1, 2'}
    """
    if form == "messages":
        return as_messages(row["messages"])
    if form == "ShareGPT":
        turns = as_messages(row["conversations"], "from", "value")
        return [{**turn, "role": SHAREGPT_ROLES.get(turn["role"], turn["role"])} for turn in turns]
    if form == "Alpaca":
        parts = [row["instruction"], row.get("input") or ""]
        strange = next((p for p in (*parts, row["output"]) if not isinstance(p, str)), None)
        if strange is not None or row["output"] is None:
            kind = type(strange if strange is not None else None).__name__
            raise FtkitError(f"instruction, input or output is a {kind}; expected text")
        asked = "\n\n".join(part for part in parts if part.strip())
        system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
        return [*system, *_turn("user", asked), *_turn("assistant", row["output"])]
    return [*prompt_messages(row["prompt"]), *_answer(row["completion"])]


def prompt_messages(prompt: Any) -> list[Message]:
    """Return a prompt, a text or messages, as messages."""
    return _turn("user", prompt) if isinstance(prompt, str) else as_messages(prompt)


def _answer(answer: Any) -> list[Message]:
    return _turn("assistant", answer) if isinstance(answer, str) else as_messages(answer)


def preference_messages(row: dict[str, Any]) -> tuple[list[Message], list[Message], list[Message]]:
    """Return prompt, chosen and rejected answer of a row; the prompt may stand in both answers.

    Raises
    ------
    FtkitError
        One is neither a text nor messages, or no shared prompt is found.
    """
    chosen, rejected = _answer(row["chosen"]), _answer(row["rejected"])
    if row.get("prompt") is not None:
        return prompt_messages(row["prompt"]), chosen, rejected
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    if shared == 0:
        raise FtkitError("has no prompt, and chosen and rejected do not begin with the same turns")
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _turn(role: str, content: str) -> list[Message]:
    return [{"role": role, "content": content}]


def as_messages(turns: Any, role: str = "role", content: str = "content") -> list[Message]:
    """Return turns as messages, once it is known that each has a role and a text.

    Raises
    ------
    FtkitError
        They are no list, or a turn lacks one of them.
    """
    if not isinstance(turns, list | tuple):
        raise FtkitError(f"is a {type(turns).__name__}; expected a list of turns")
    messages = []
    for i, turn in enumerate(turns, start=1):
        if not isinstance(turn, dict) or role not in turn or content not in turn:
            held = ", ".join(map(str, turn)) if isinstance(turn, dict) else type(turn).__name__
            raise FtkitError(f'turn {i} holds {held}; expected "{role}" and "{content}"')
        if not isinstance(turn[role], str) or not isinstance(turn[content], str):
            kinds = f"{type(turn[role]).__name__} and {type(turn[content]).__name__}"
            raise FtkitError(f'turn {i}: "{role}" and "{content}" are {kinds}; expected text')
        messages.append({"role": turn[role], "content": turn[content]})
    return messages


def message_problems(messages: Sequence[Message], *, answered: bool = True) -> list[str]:
    """Return a clause for each fault of a conversation: roles, their order, empty turns.

    Parameters
    ----------
    messages : sequence of dict
    answered : bool
        Whether the last turn must be the assistant's; else it must be the user's.

    Examples
    --------
    >>> message_problems([{"role": "user", "content": "Hi"}])
    ['has no turn of the assistant']
    """
    roles = [message["role"] for message in messages]
    unknown = [(i, role) for i, role in enumerate(roles, start=1) if role not in ROLES]
    if unknown:
        return [f'turn {i} has the role "{role}". {closest(role, ROLES)}' for i, role in unknown]
    problems = [
        f"turn {i}, the {message['role']}'s, is empty"
        for i, message in enumerate(messages, start=1)
        if not message["content"].strip()
    ]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    if answered and "assistant" not in roles:
        return [*problems, "has no turn of the assistant"]
    last = "assistant" if answered else "user"
    expected = [("user", "assistant")[i % 2] for i in range(len(spoken))]
    wrong = next(
        (i for i, pair in enumerate(zip(spoken, expected, strict=True)) if pair[0] != pair[1]), None
    )
    if wrong is not None:
        number = wrong + len(roles) - len(spoken) + 1
        problems.append(
            f"turn {number} is the {spoken[wrong]}'s; expected the {expected[wrong]}'s "
            f"(a system turn first, then user and assistant in turns)"
        )
    elif not spoken or spoken[-1] != last:
        whose = f"ends with the {spoken[-1]}'s turn" if spoken else "is empty"
        problems.append(f"{whose}; expected the {last}'s")
    return problems


def with_messages(splits: DatasetDict) -> DatasetDict:
    """Return the splits with one column ``messages``, whichever form they had; ``row`` stays.

    Raises
    ------
    FtkitError
        The form is not known, or rows are faulty: all of them, by file and row.
    """
    problems: list[str] = []
    converted = DatasetDict()
    for name, split in splits.items():
        converted[str(name)] = _convert(str(name), split, problems)
    raise_problems(problems)
    return converted


def _convert(name: str, split: Dataset, problems: list[str]) -> Dataset:
    form = find_form(split.column_names)
    if form is None:
        forms = "; ".join(f"{form}: {', '.join(names)}" for form, names in FORMS.items())
        raise FtkitError(
            f'split "{name}" holds {", ".join(c for c in split.column_names if c != "row")}. A '
            f"conversation has the columns of one of these forms: {forms}."
        )
    found = []
    for i, row in enumerate(split):
        try:
            messages = to_messages(row, form)  # type: ignore[arg-type]
            faults = message_problems(messages)
        except FtkitError as error:
            messages, faults = [], [str(error)]
        found.append(messages)
        problems += [f"{row_name(name, split, i)}: {fault}." for fault in faults]
    kept = {"row": split["row"]} if "row" in split.column_names else {}
    return Dataset.from_dict({"messages": found, **kept})

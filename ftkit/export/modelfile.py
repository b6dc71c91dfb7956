"""A Modelfile, from which Ollama makes a model of a GGUF file: template, system text, stops."""

import json
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

MADE_BY = "# Made by ftkit export"
USER = [{"role": "user", "content": "Hello, who are you?"}]
TALK = [
    {"role": "system", "content": "You are brief."},
    *USER,
    {"role": "assistant", "content": "A model."},
    {"role": "user", "content": "Of what?"},
]
CHATML_IN_GO = """{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""


def write_modelfile(path: Path, tokenizer: Any, ends: list[int]) -> list[str]:
    """Write a Modelfile beside a GGUF file.

    Ollama's templates are written in Go's language, so that a checkpoint's own, written in Jinja,
    serves only where it is known to be ChatML.

    Parameters
    ----------
    path : Path
        The GGUF file.
    tokenizer : PreTrainedTokenizerBase
    ends : list of int
        The tokens that end an answer.

    Returns
    -------
    list of str
        What remains to be done by hand, one sentence each.
    """
    known, system = find_template(tokenizer)
    lines = [f"{MADE_BY}: ollama create NAME -f Modelfile", f"FROM ./{path.name}"]
    notes = []
    if known is None:
        notes.append(
            "The chat template is not ChatML, so the Modelfile has no TEMPLATE: Ollama takes the "
            "one in the file where it knows its kind, else write one: https://docs.ollama.com."
        )
        lines.append(
            "# TEMPLATE: Ollama takes that of the file where it knows its kind; else write it"
        )
    else:
        lines.append(f'TEMPLATE """{known}"""')
    if system:
        lines.append(f'SYSTEM """{system}"""')
    stops = tokenizer.convert_ids_to_tokens(ends)
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops]
    lines += [
        "# For the answers of ftkit predict, which takes the likeliest token each time:",
        "# PARAMETER temperature 0",
        "# PARAMETER repeat_penalty 1",
    ]
    path.with_name("Modelfile").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return notes


def find_template(tokenizer: Any) -> tuple[str | None, str]:
    """Return a chat template in Go's language, and the system text that the own one adds unasked.

    Returns
    -------
    template : str or None
        None where the tokenizer's own is not ChatML. A tokenizer without one continues texts.
    system : str
        Empty where nothing is added.
    """
    if not tokenizer.chat_template:
        return "{{ .Prompt }}", ""
    try:
        talk, user = (
            tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            for messages in (TALK, USER)
        )
    except TemplateError:  # such as one that knows no system text
        return None, ""
    before, found, after = user.partition(chatml(USER))
    opening, _, rest = before.partition("<|im_start|>system\n")
    system = rest.removesuffix("<|im_end|>\n")
    told = chatml([{"role": "system", "content": system}, *USER]) if rest else chatml(USER)
    if talk != chatml(TALK) or user != told or opening or after or not found or '"""' in system:
        return None, ""
    return CHATML_IN_GO, system


def chatml(messages: list[dict[str, str]]) -> str:
    """Return a conversation in ChatML, the assistant's turn begun.

    Examples
    --------
    >>> chatml([{"role": "user", "content": "Hi"}])
    '<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n'
    """
    turns = [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages]
    return "".join(turns) + "<|im_start|>assistant\n"

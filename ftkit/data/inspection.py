"""Look at encoded rows: each token, which of them the loss looks at, and counts of all rows."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, DatasetDict

from ftkit.data.splits import row_name
from ftkit.errors import FtkitError

IGNORED = -100
SPECIAL, SUPERVISED, CONTEXT = "special", "supervised", "context"
STYLES = {  # legible on white and on black
    CONTEXT: "opacity: 0.75",
    SUPERVISED: "background: rgba(0, 158, 115, 0.35); font-weight: bold",
    SPECIAL: "border: 1px solid rgba(230, 159, 0, 0.9); border-radius: 3px",
}
ANSI = {CONTEXT: "2", SUPERVISED: "1;32", SPECIAL: "33"}
MARKS = str.maketrans({"\n": "↵", "\t": "→", " ": "·"})


@dataclass(frozen=True)
class Token:
    """One token of a row: its text, whether the loss looks at it, whether it is special, a note."""

    text: str
    supervised: bool
    special: bool
    note: str = ""


@dataclass(frozen=True)
class Line:
    """Some tokens of a row under a name, such as ``chosen``."""

    name: str
    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found; shows itself coloured in a notebook and in a terminal.

    Attributes
    ----------
    rows : list of (str, list of Line)
        The first rows: where each came from, and its tokens.
    counts : dict of str to int or float
        ``rows``, ``tokens``, ``supervised`` (tokens), ``supervised_share``, ``longest``.
    unsupervised, endless : list of str
        Rows at whose tokens the loss never looks, and rows of text whose last supervised token is
        not one that ends it.
    """

    rows: list[tuple[str, list[Line]]]
    counts: dict[str, float]
    unsupervised: list[str]
    endless: list[str]

    def check(self) -> None:
        """Raise `FtkitError` where rows teach nothing, or do not teach to stop.

        Raises
        ------
        FtkitError
        """
        faults = (
            (self.unsupervised, "no token is supervised: the loss looks at nothing"),
            (
                self.endless,
                "the last supervised token ends no text: the model does not learn to stop",
            ),
        )
        problems = [
            f"{names[0]}: {fault}{f' ({len(names):,} such rows)' if len(names) > 1 else ''}."
            for names, fault in faults
            if names
        ]
        if problems:
            raise FtkitError("\n".join(problems))

    def summary(self) -> str:
        """Return the counts as one line."""
        counts = self.counts
        return (
            f"{counts['rows']:,} rows, {counts['tokens']:,} tokens, "
            f"{counts['supervised_share']:.1%} supervised; longest row {counts['longest']:,}"
        )

    def to_text(self, *, color: bool = False) -> str:
        """Return the rows as text, supervised tokens in ⟦ ⟧ or, with `color`, in green."""
        parts = [self.summary()]
        for name, lines in self.rows:
            parts.append(f"\n{name}")
            parts += [f"{line.name}{_text(line.tokens, color)}" for line in lines]
        return "\n".join(parts)

    def __str__(self) -> str:
        """Return the rows as plain text."""
        return self.to_text()

    def _repr_html_(self) -> str:
        parts = [f"<p>{html.escape(self.summary())}</p>"]
        for name, lines in self.rows:
            parts.append(f"<p><small>{html.escape(name)}</small></p>")
            parts += [f"<p>{html.escape(line.name)}{_html(line.tokens)}</p>" for line in lines]
        key = "".join(f'<span style="{STYLES[kind]}">{kind}</span> ' for kind in STYLES)
        return "".join(parts) + f"<p><small>{key}</small></p>"


def inspect(
    encoded: Dataset | DatasetDict, tokenizer: Any, task: Any = None, *, n_rows: int = 3
) -> Inspection:
    """Show the first rows token by token, with what the loss looks at, and count all rows.

    Parameters
    ----------
    encoded : datasets.Dataset or DatasetDict
        From ``task.encode``; of several splits, the first.
    tokenizer : PreTrainedTokenizerBase
    task : Task, optional
        Names the labels.
    n_rows : int

    Returns
    -------
    Inspection

    Raises
    ------
    FtkitError
        The rows are not encoded.

    Examples
    --------
    >>> print(inspect(encoded, tokenizer))  # doctest: +SKIP
    200 rows, 31,024 tokens, 84.1% supervised; longest row 237
    """
    split = next(iter(encoded.values())) if isinstance(encoded, DatasetDict) else encoded
    name = str(next(iter(encoded))) if isinstance(encoded, DatasetDict) else "rows"
    if "input_ids" not in split.column_names:
        raise FtkitError(
            f"The rows hold {', '.join(split.column_names)}; expected encoded ones: "
            f"task.encode(splits, tokenizer)."
        )
    added = tokenizer.added_tokens_decoder.items()
    special = {*tokenizer.all_special_ids, *(i for i, token in added if token.special)}
    tokens = supervised = longest = 0
    unsupervised, endless, shown = [], [], []
    for i, row in enumerate(split):
        lines = _lines(row, tokenizer, task, special)
        size = [sum(len(line.tokens) for line in lines), _count(lines)]
        tokens, supervised, longest = tokens + size[0], supervised + size[1], max(longest, size[0])
        where = row_name(name, split, i)
        if size[1] == 0:
            unsupervised.append(where)
        elif _writes(row, task) and any(not _ends(line) for line in lines if _count([line])):
            endless.append(where)
        if i < n_rows:
            shown.append((where, lines))
    counts = {"rows": len(split), "tokens": tokens, "supervised": supervised, "longest": longest}
    counts = {**counts, "supervised_share": supervised / max(tokens, 1)}
    return Inspection(shown, counts, unsupervised, endless)


def _writes(row: Any, task: Any) -> bool:
    """Say whether the labels of a row are a text that the model learns to write, and to end."""
    names = ("causal-lm", "chat", "preference", "seq2seq")
    return task is not None and task.name in names


def _count(lines: Iterable[Line]) -> int:
    return sum(token.supervised for line in lines for token in line.tokens)


def _ends(line: Line) -> bool:
    return [token.special for token in line.tokens if token.supervised][-1:] == [True]


def _lines(row: Any, tokenizer: Any, task: Any, special: set[int]) -> list[Line]:
    """Return the tokens of one row: of a pair of answers, or of source and target, two lines."""
    ids, labels = row["input_ids"], row.get("labels")

    def line(name: str, ids: Sequence[int], notes: Sequence[str | None]) -> Line:
        texts = tokenizer.convert_ids_to_tokens(list(ids))
        pieces = [tokenizer.decode([token]) or text for token, text in zip(ids, texts, strict=True)]
        found = [
            Token(piece, note is not None, token in special, note or "")
            for piece, token, note in zip(pieces, ids, notes, strict=True)
        ]
        return Line(name, tuple(found))

    def mask(ids: Sequence[int], labels: Sequence[int]) -> list[str | None]:
        return [None if label == IGNORED else "" for _, label in zip(ids, labels, strict=True)]

    if "rejected_input_ids" in row:
        rejected = row["rejected_input_ids"]
        return [
            line("chosen: ", ids, mask(ids, labels)),
            line("rejected: ", rejected, mask(rejected, row["rejected_labels"])),
        ]
    if "start_positions" in row:
        first, last = row["start_positions"], row["end_positions"]
        return [line("", ids, ["" if first <= i <= last else None for i in range(len(ids))])]
    if not isinstance(labels, list):
        names = getattr(task, "labels", ())
        name = names[labels] if isinstance(labels, int) and 0 <= labels < len(names) else labels
        given = "" if labels is None else f"{name}: "
        return [line(given, ids, [None if labels is None else ""] * len(ids))]
    if task is not None and task.name == "seq2seq":
        target = [label for label in labels if label != IGNORED]
        return [
            line("source: ", ids, [None] * len(ids)),
            line("target: ", target, [""] * len(target)),
        ]
    tagged = getattr(task, "name", "") == "token-classification"
    names = getattr(task, "labels", None) if tagged else None
    notes = mask(ids, labels)
    if names is not None:
        notes = [None if n is None else str(names[x]) for n, x in zip(notes, labels, strict=True)]
    elif task is not None and task.name == "masked-lm":
        notes = [
            None if n is None else tokenizer.decode([x]) for n, x in zip(notes, labels, strict=True)
        ]
    return [line("", ids, notes)]


def _kind(token: Token) -> str:
    return SUPERVISED if token.supervised else SPECIAL if token.special else CONTEXT


def _shown(token: Token) -> str:
    return token.text.translate(MARKS) + (f"/{token.note}" if token.note else "")


def _text(tokens: Sequence[Token], color: bool) -> str:
    if color:
        return "".join(f"\x1b[{ANSI[_kind(token)]}m{_shown(token)}\x1b[0m" for token in tokens)
    return "".join(f"⟦{_shown(t)}⟧" if t.supervised else _shown(t) for t in tokens)


def _html(tokens: Sequence[Token]) -> str:
    spans = []
    for token in tokens:
        kinds = [_kind(token)] + ([SPECIAL] if token.special and token.supervised else [])
        style = "; ".join(STYLES[kind] for kind in kinds)
        spans.append(f'<span style="{style}">{html.escape(_shown(token))}</span>')
    return f'<span style="font-family: monospace; line-height: 1.7">{" ".join(spans)}</span>'

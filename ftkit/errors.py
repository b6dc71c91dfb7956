"""The one error that ftkit raises on purpose, and the words that help its reader."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class FtkitError(ValueError):
    """Something in the input is not as ftkit needs it; the message says what, where and what to do.

    Examples
    --------
    >>> raise FtkitError("learning_rate is -1.0; expected a number above 0")
    Traceback (most recent call last):
        ...
    ftkit.errors.FtkitError: learning_rate is -1.0; expected a number above 0
    """


class StoppedError(FtkitError):
    """A signal ended the run early, and everything is saved; ``signum`` says which signal."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum


def closest(word: str, options: Iterable[str]) -> str:
    """Return a sentence that names the option nearest to `word`, or all options where none is near.

    Examples
    --------
    >>> closest("sentense1", ["sentence1", "sentence2", "label"])
    'Did you mean "sentence1"?'
    >>> closest("x", ["full", "head"])
    'Expected one of: full, head.'
    """
    options = list(options)
    near = get_close_matches(word, options, n=1)
    return f'Did you mean "{near[0]}"?' if near else f"Expected one of: {', '.join(options)}."


def raise_problems(problems: Sequence[str], shown: int = 10) -> None:
    """Raise one `FtkitError` that lists every problem; do nothing where there is none.

    Parameters
    ----------
    problems : sequence of str
        One sentence each.
    shown : int
        How many are written out; the others are counted.

    Raises
    ------
    FtkitError
        Where `problems` is not empty.
    """
    if not problems:
        return
    lines = list(problems[:shown])
    if len(problems) > shown:
        lines.append(f"… and {len(problems) - shown} more")
    raise FtkitError("\n".join(lines))

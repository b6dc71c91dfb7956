"""Load labelled text as a `DatasetDict`: bundled, from a file or folder, or from the hub."""

from pathlib import Path

import datasets
from datasets import Dataset, DatasetDict
from datasets.exceptions import DatasetsError
from sklearn.model_selection import GroupShuffleSplit

from ftkit import hub
from ftkit.data.files import READERS, read_table
from ftkit.errors import FtkitError, closest
from ftkit.paths import bundled, bundled_names

SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


@hub.time_limits()
def load_splits(source: str | Path, *, seed: int = 0) -> DatasetDict:
    """Load a data set with its splits.

    Parameters
    ----------
    source : str or Path
        A bundled name (``"paraphrase"``); a folder that holds ``train``, ``validation`` and
        ``test`` files; one file, which is then split 80/10/10 so that equal rows stay together,
        and all questions about one context;
        or a hub id, with its configuration after a colon (``"nyu-mll/glue:mrpc"``).
        Files end in ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet``.
    seed : int
        Decides the split of a single file; the same seed gives the same split.

    Returns
    -------
    datasets.DatasetDict
        One `datasets.Dataset` a split. A column ``row`` says where each row came from.

    Raises
    ------
    FtkitError
        Nothing is there, or it cannot be read; the message names file and row.

    Examples
    --------
    >>> splits = load_splits("paraphrase")
    >>> sorted(splits)
    ['test', 'train', 'validation']
    """
    if str(source) in bundled_names():
        return _load_folder(bundled(str(source)))
    try:
        return _load(source, seed)
    except OSError as error:
        raise FtkitError(f"{source}: cannot be read: {error.strerror or error}.") from error


def _load(source: str | Path, seed: int) -> DatasetDict:
    path = Path(source)
    if path.is_dir():
        return _load_folder(path)
    if path.is_file() or path.suffix.lower() in READERS:
        rows = read_table(path)
        grouped = {"context", "question"} <= set(rows.column_names)
        return split_rows(rows, seed=seed, group_column="context" if grouped else None)
    if str(source).count("/") == 1 and not str(source).startswith((".", "/")):
        return _load_hub(str(source))
    raise FtkitError(
        f'"{source}" is no bundled data set, no file and no folder. '
        f"{closest(str(source), bundled_names())}"
    )


def _load_folder(folder: Path) -> DatasetDict:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        name = SPLIT_NAMES.get(path.stem)
        if name is None or path.suffix.lower() not in READERS:
            continue
        if name in found:
            raise FtkitError(
                f'{folder}: both {found[name].name} and {path.name} could be the split "{name}".'
            )
        found[name] = path
    if not found:
        raise FtkitError(
            f"{folder}: holds no train, validation or test file. Expected one of: "
            f"{', '.join('train' + suffix for suffix in READERS)}."
        )
    order = [name for name in ("train", "validation", "test") if name in found]
    return DatasetDict({name: read_table(found[name]) for name in order})


def _load_hub(source: str) -> DatasetDict:
    repo_id, _, config = source.partition(":")
    try:
        names = hub.file_names(repo_id, "dataset")
    except hub.UnreachableError:
        names = hub.cached_names(repo_id, "dataset")
        if not names:
            raise
    script = repo_id.split("/")[1] + ".py"
    if script in names:
        raise FtkitError(
            f"{source}: wants to run code of its own ({script}), and ftkit runs none. Choose a "
            f"data set whose rows are files, such as Parquet."
        )
    try:
        return datasets.load_dataset(repo_id, config or None)  # type: ignore[return-value]
    except (ValueError, DatasetsError, *hub.ERRORS) as error:
        text = f"{source}: the hub's data set does not load: {error}"
        raise FtkitError(hub.unreachable(repo_id, error) or text) from error


def split_rows(dataset: Dataset, *, seed: int = 0, group_column: str | None = None) -> DatasetDict:
    """Split rows 80/10/10 into train, validation and test; rows of one group stay together.

    Parameters
    ----------
    dataset : datasets.Dataset
    seed : int
    group_column : str, optional
        Rows with the same value here go to the same split. By default, equal rows do.

    Raises
    ------
    FtkitError
        Fewer than ten groups.
    """
    if group_column is None:
        content = [name for name in dataset.column_names if name != "row"]
        groups = [repr(values) for values in zip(*(dataset[n] for n in content), strict=True)]
    else:
        groups = list(dataset[group_column])
    if len(set(groups)) < 10:
        raise FtkitError(
            f"{len(set(groups))} different rows are too few to split into train, validation and "
            f"test; expected at least 10. Or give a folder with one file a split."
        )
    rows = list(range(len(dataset)))
    train, rest = next(
        GroupShuffleSplit(1, test_size=0.2, random_state=seed).split(rows, None, groups)
    )
    rest_groups = [groups[i] for i in rest]
    halves = GroupShuffleSplit(1, test_size=0.5, random_state=seed).split(rest, None, rest_groups)
    validation, test = (rest[part] for part in next(halves))
    parts = {"train": train, "validation": validation, "test": test}
    return DatasetDict({name: dataset.select(sorted(part)) for name, part in parts.items()})


def row_name(split: str, dataset: Dataset, index: int) -> str:
    """Return where a row came from: its file and row, or else its split and index."""
    if "row" in dataset.column_names:
        return str(dataset[index]["row"])
    return f'split "{split}", index {index}'

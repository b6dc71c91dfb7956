"""Every task from the command line, against a baseline: counting, or the untouched model.

Run ``python -m tests.benchmarks.tasks`` (some 15 minutes of CPU time). For each task it calls
``ftkit train`` and ``ftkit evaluate`` as the README gives them, measures the baseline on the same
test rows, and writes both, with 95 % intervals over the rows, to ``data/results/tasks.json``.
"""

import argparse
import json
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import DatasetDict
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import ftkit
from ftkit.cli.main import main as run_ftkit
from ftkit.evaluation.reports import bootstrap_weights, percentile_interval
from ftkit.metrics import entities, ngrams, squad
from ftkit.paths import bundled

RESULTS = bundled("results/tasks.json")
SENTENCE = re.compile(r'(?<=[.!?])["\')]*\s+(?=["\']?[A-Z0-9])')


class Counts(NamedTuple):
    """What a baseline did on each test row, (n_rows, n_counts), and how sums become a score."""

    rows: np.ndarray
    score: Callable[[np.ndarray], np.ndarray]


def share(sums: np.ndarray) -> np.ndarray:
    """Return the first sum divided by the second."""
    return sums[..., 0] / sums[..., 1]


def label_baseline(splits: DatasetDict, _: Path) -> Counts:
    """TF-IDF on words with a logistic regression."""
    classifier = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=2000))
    classifier.fit(list(splits["train"]["text"]), list(splits["train"]["label"]))
    right = classifier.predict(list(splits["test"]["text"])) == np.array(splits["test"]["label"])
    return Counts(np.stack([right, np.ones(len(right))], axis=1), share)


def token_baseline(splits: DatasetDict, model: Path, order: int) -> Counts:
    """Count tokens after 0 to order - 1 others; smooth as Witten and Bell (1991) do."""
    task, tokenizer, _ = ftkit.load_saved(model)
    encoded = task.encode(splits, tokenizer)
    seen: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for ids in _whole(encoded["train"]):
        for i in range(order - 1, len(ids)):
            for length in range(order):
                seen[tuple(ids[i - length : i])][ids[i]] += 1
    rows = []
    for ids, labels in zip(_whole(encoded["test"]), encoded["test"]["labels"], strict=True):
        places = [i for i, label in enumerate(labels) if label != -100]
        losses = [_loss(seen, ids, i, min(order, i + 1), len(tokenizer)) for i in places]
        rows.append((sum(losses), len(losses)))
    return Counts(np.array(rows, float), share)


def _whole(split: Any) -> list[list[int]]:
    """Return the tokens of each row, with what stood in the gaps."""
    columns = zip(split["input_ids"], split["labels"], strict=True)
    return [[t if y == -100 else y for t, y in zip(*row, strict=True)] for row in columns]


def _loss(seen: dict, ids: list[int], i: int, order: int, vocabulary: int) -> float:
    """Return the loss in nats of the token at place i."""
    probability = 1 / vocabulary
    for length in range(order):
        found = seen.get(tuple(ids[i - length : i]))
        if found:
            mixed = found[ids[i]] + len(found) * probability
            probability = mixed / (found.total() + len(found))
    return -np.log(probability)


def entity_baseline(splits: DatasetDict, _: Path) -> Counts:
    """Give each word the tag that it had most often; new words are outside."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for row in splits["train"]:
        for word, tag in zip(row["tokens"], row["tags"], strict=True):
            seen[word.lower()][tag] += 1
    best = {word: counts.most_common(1)[0][0] for word, counts in seen.items()}
    rows = []
    for row in splits["test"]:
        guess = [best.get(word.lower(), "O") for word in row["tokens"]]
        mine, true = (set(entities.find_entities(tags)) for tags in (guess, row["tags"]))
        rows.append((2 * len(mine & true), len(mine) + len(true)))
    return Counts(np.array(rows, float), share)


def answer_baseline(splits: DatasetDict, _: Path) -> Counts:
    """Answer with the sentence that shares most words with the question."""
    rows = []
    for row in splits["test"]:
        asked = set(squad.normalize_answer(row["question"]).split())
        sentences = SENTENCE.split(row["context"])
        best = max(sentences, key=lambda s: len(asked & set(squad.normalize_answer(s).split())))
        rows.append((squad.answer_f1(best, row["answers"]["text"]), 1))
    return Counts(np.array(rows, float), share)


def translation_baseline(splits: DatasetDict, _: Path) -> Counts:
    """Translate word for word: the run of characters that goes with each most often (Dice)."""
    together: dict[str, Counter[str]] = defaultdict(Counter)
    words: Counter[str] = Counter()
    runs: Counter[str] = Counter()
    for row in splits["train"]:
        parts = re.split("[，。？！、：]", row["chinese"])
        found = {p[i : i + n] for p in parts for n in range(1, 5) for i in range(len(p) - n + 1)}
        runs.update(found)
        for word in set(_words(row["english"])):
            words[word] += 1
            together[word].update(found)
    guesses = []
    for english in splits["test"]["english"]:
        out = ""
        for word in _words(english):
            pairs = [(run, n) for run, n in together[word].items() if n > 1]
            scored = [(2 * n / (words[word] + runs[run]), run) for run, n in pairs]
            score, best = max(scored, default=(0.0, ""))
            out += best if score >= 0.4 else ""
        guesses.append(out + ("？" if english.endswith("?") else "。"))
    statistics = ngrams.chrf_statistics(guesses, splits["test"]["chinese"])
    return Counts(statistics, ngrams.chrf_score)


def _words(text: str) -> list[str]:
    return [word.strip('.,?!"') for word in text.lower().split()]


def untouched_baseline(splits: DatasetDict, model: Path) -> Counts:
    """The checkpoint as it came."""
    task, *_ = ftkit.load_saved(model)
    tokenizer, untouched = ftkit.load_pretrained(task.default_checkpoint, task)
    encoded = task.encode(DatasetDict({"test": splits["test"]}), tokenizer)
    report = ftkit.evaluate(untouched, encoded["test"], task, n_resamples=0)
    return Counts(report.statistics, share)


class Case(NamedTuple):
    """One line of the table: stages of ``ftkit train``, metric, baseline and what it is called."""

    task: str
    data: str
    stages: tuple[str, ...]
    metric: str
    called: str
    baseline: Callable[[DatasetDict, Path], Counts]


CASES = (
    Case(
        "sequence-classification",
        "reviews",
        ("--data reviews --learning-rate 2e-4",),
        "accuracy",
        "TF-IDF",
        label_baseline,
    ),
    Case(
        "causal-lm",
        "stories",
        ("--data stories --learning-rate 3e-4 --batch-size 8",),
        "loss",
        "trigrams of tokens",
        lambda splits, model: token_baseline(splits, model, 3),
    ),
    Case(
        "chat",
        "chats",
        ("--data chats --tune top:6 --learning-rate 2e-4 --num-train-epochs 1 --batch-size 8",),
        "loss",
        "untouched model",
        untouched_baseline,
    ),
    Case(
        "masked-lm",
        "reviews_zh",
        ("--data reviews_zh --task masked-lm --learning-rate 5e-4",),
        "loss",
        "frequency of tokens",
        lambda splits, model: token_baseline(splits, model, 1),
    ),
    Case(
        "token-classification",
        "entities",
        ("--data entities --learning-rate 3e-4 --num-train-epochs 5 --batch-size 16",),
        "f1",
        "dictionary",
        entity_baseline,
    ),
    Case(
        "question-answering",
        "questions",
        (
            "--data cloze --learning-rate 3e-4 --head-learning-rate 3e-3 --num-train-epochs 1"
            " --batch-size 8",
            "--data questions --tune top:4 --learning-rate 3e-4 --batch-size 8",
        ),
        "f1",
        "nearest sentence",
        answer_baseline,
    ),
    Case(
        "seq2seq",
        "phrases_en_zh",
        ("--data phrases_en_zh --learning-rate 5e-4 --num-train-epochs 6 --batch-size 16",),
        "chrf",
        "dictionary",
        translation_baseline,
    ),
)


def commands(case: Case) -> list[str]:
    """Return the options of each stage; a later one begins with the model of the one before."""
    lines = []
    for number, stage in enumerate(case.stages, start=1):
        begun = f" --checkpoint model{number - 1}" if number > 1 else ""
        name = f"model{number}" if number < len(case.stages) else "model"
        lines.append(f"train {stage}{begun} --warmup-steps 0.1 --output {name}")
    return lines


def measure(case: Case) -> dict[str, Any]:
    """Train and evaluate on the command line, score the baseline on the same rows."""
    with tempfile.TemporaryDirectory() as folder:
        for line in commands(case):
            words = [f"{folder}/{w}" if w.startswith("model") else w for w in line.split()]
            assert run_ftkit(words) == 0
        model, file = Path(folder) / "model", Path(folder) / "scores.json"
        arguments = ["evaluate", str(model), "--data", case.data, "--json", str(file)]
        assert run_ftkit(arguments) == 0
        scores = json.loads(file.read_text(encoding="utf-8"))
        counts = case.baseline(ftkit.load_splits(case.data), model)
    drawn = counts.score(bootstrap_weights(len(counts.rows), 2000) @ counts.rows)
    found = {
        "fine-tuned": (scores[case.metric], *scores["intervals"][case.metric]),
        case.called: (float(counts.score(counts.rows.sum(axis=0))), *percentile_interval(drawn)),
    }
    scored = {name: [round(value, 3) for value in values] for name, values in found.items()}
    return {"data": case.data, "metric": case.metric, "commands": commands(case), "scores": scored}


def main() -> None:
    """Measure the tasks asked for, or all, and keep each result as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", metavar="TASK")
    args = parser.parse_args()
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for case in CASES:
        if not args.tasks or case.task in args.tasks:
            results[case.task] = measure(case)
            print(case.task, results[case.task]["scores"], flush=True)
            ordered = {c.task: results[c.task] for c in CASES if c.task in results}
            RESULTS.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

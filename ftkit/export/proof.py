"""Compare what another reader makes of an export with the live model, or refuse the export."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from scipy.special import log_softmax

from ftkit.data.batches import Batch, collate
from ftkit.errors import FtkitError
from ftkit.export.source import Source
from ftkit.models import load_pretrained
from ftkit.paths import bundled
from ftkit.tasks import MaskedLM

Answer = Callable[[Batch], dict[str, np.ndarray]]  # a batch in, logits under their names out

N_TEXTS = 32
N_CHARACTERS = 240  # of each text, fewer where the model's positions are few
N_ROWS = 4  # a batch: padding and its mask are compared too
SPAN = ("start_logits", "end_logits")
NEARER = 2.0  # how much farther the untouched model must be than the tuned one


@dataclass(frozen=True)
class Bounds:
    """The farthest that an export may be from its model.

    Attributes
    ----------
    weights : float or None
        Largest relative error of a matrix, ‖W − W'‖ / ‖W‖; None where none are read back.
    kl : float
        Mean KL divergence of the export's predictions from the model's, in nats.
    agreement : float
        Least share of equal greedy predictions.
    """

    weights: float | None
    kl: float
    agreement: float


@dataclass(frozen=True)
class Proof:
    """How far an export, read by another program, is from the model that it was made of.

    Attributes
    ----------
    format, type, reader : str
    n_texts, n_predictions : int
        What was compared: a language model predicts once a token, a classifier once a text.
    max_difference : float
        Largest difference of two logits.
    kl : float
        Mean KL divergence KL(model ‖ export), in nats.
    agreement : float
        Share of predictions whose likeliest choice is the same.
    weights : float or None
        Largest relative error of a matrix, ‖W − W'‖ / ‖W‖.
    untouched : str or None
        The checkpoint that training began with, where it was compared.
    kl_untouched : float or None
        Mean KL divergence KL(untouched ‖ export), in nats.
    notes : tuple of str
        What else is to be known, one sentence each.
    """

    format: str
    type: str | None
    reader: str
    n_texts: int
    n_predictions: int
    max_difference: float
    kl: float
    agreement: float
    weights: float | None = None
    untouched: str | None = None
    kl_untouched: float | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return json.loads(json.dumps(asdict(self)))

    def __str__(self) -> str:
        """Return the numbers, one a line, then the notes."""
        lines = [
            f"{self.n_texts} texts, {self.n_predictions} predictions, read by {self.reader}",
            f"largest difference of a logit  {self.max_difference:.3g}",
            f"KL(model ‖ export)             {self.kl:.3g} nats",
            f"equal greedy predictions       {self.agreement:.1%}",
        ]
        if self.weights is not None:
            lines.append(f"largest error of a matrix      {self.weights:.2%}")
        if self.kl_untouched is not None:
            lines.append(f"KL(untouched ‖ export)         {self.kl_untouched:.3g} nats")
        return "\n".join([*lines, *self.notes])


def proof_rows(source: Source, texts: Sequence[str] | None = None) -> Dataset:
    """Encode the texts on which model and export are compared.

    Parameters
    ----------
    source : Source
    texts : sequence of str, optional
        By default the beginnings of 32 bundled stories. A task of pairs takes each text twice.

    Returns
    -------
    datasets.Dataset
        One row a text.
    """
    if texts is None:
        limit = min(source.tokenizer.model_max_length, 2 * N_CHARACTERS)
        lines = bundled("stories/stories.jsonl").read_text(encoding="utf-8").splitlines()
        stories = [json.loads(line)["story"] for line in lines[:N_TEXTS]]
        texts = [story[: limit // 2] for story in stories]
    if isinstance(texts, str) or not texts:
        raise FtkitError(f"texts is {texts!r}; expected a list of one or more texts.")
    if isinstance(source.task, MaskedLM):  # whose texts have a gap to fill
        texts = [f"{text} {source.tokenizer.mask_token}" for text in texts]
    rows = [(text,) * len(source.task.given_columns) for text in texts]
    return source.task.encode_texts(rows, source.tokenizer)


def answers_of(model: Any) -> Answer:
    """Return a function that gives a torch model's logits for a batch."""

    @torch.inference_mode()
    def answer(batch: Batch) -> dict[str, np.ndarray]:
        outputs = model(**batch)
        names = [name for name in ("logits", *SPAN) if name in outputs]
        return {name: outputs[name].float().cpu().numpy() for name in names}

    return answer


def weight_error(model: Any, other: Any) -> float:
    """Return the largest relative error of a matrix, ‖W − W'‖ / ‖W‖, of two torch models."""
    found = other.state_dict()
    errors = [
        float((weights - found[name]).norm() / weights.norm().clamp(min=1e-30))
        for name, weights in model.state_dict().items()
    ]
    return float(np.max(errors))


def prove(
    source: Source,
    rows: Dataset,
    exported: Answer,
    bounds: Bounds,
    *,
    told: dict[str, Any],
    compare_untouched: bool,
) -> Proof:
    """Compare an export with its model on encoded rows, and with the untouched model where asked.

    Parameters
    ----------
    source : Source
    rows : datasets.Dataset
        From `proof_rows`.
    exported : callable
        The export as another program reads it.
    bounds : Bounds
    told : dict
        The fields of the proof that are known already: format, type, reader, weights, notes.
    compare_untouched : bool
        Compare with ``source.untouched`` too.

    Raises
    ------
    FtkitError
        The export is beyond the bounds, or not clearly nearer to the tuned model than to the
        untouched one.
    """
    answers, notes = {"kl": answers_of(source.model)}, [*source.notes, *told.pop("notes")]
    if compare_untouched and source.untouched:
        try:
            _, untouched = load_pretrained(source.untouched, source.task)
            answers["kl_untouched"] = answers_of(untouched)
            told["untouched"] = source.untouched
        except FtkitError as error:
            notes.append(f"Not compared with the untouched {source.untouched}: {error}")
    numbers = _compare(rows, source.model.config.pad_token_id, answers, exported)
    proof = Proof(**told, **numbers, notes=tuple(notes), n_texts=len(rows))
    _check(proof, bounds)
    return proof


def _compare(
    rows: Dataset, pad: int | None, answers: dict[str, Answer], exported: Answer
) -> dict[str, Any]:
    """Return the mean KL divergence from each model, and differences from the first of them."""
    sums: dict[str, float] = dict.fromkeys(answers, 0.0)
    differences, equal, n = [], 0, 0
    for start in range(0, len(rows), N_ROWS):
        batch = collate(rows, range(start, min(start + N_ROWS, len(rows))), pad)
        mask = batch["attention_mask"].bool().numpy()
        found = _distributions(exported(batch), mask)
        for name, answer in answers.items():
            for ours, theirs in zip(_distributions(answer(batch), mask), found, strict=True):
                p, q = log_softmax(ours, axis=-1), log_softmax(theirs, axis=-1)
                sums[name] += float((np.exp(p) * (p - q)).sum())
                if name == "kl":
                    differences.append(float(np.abs(ours - theirs).max()))
                    equal += int((ours.argmax(axis=-1) == theirs.argmax(axis=-1)).sum())
                    n += len(ours)
    means = {name: total / n for name, total in sums.items()}
    worst = float(np.max(differences))
    return {**means, "max_difference": worst, "agreement": equal / n, "n_predictions": n}


def _distributions(outputs: dict[str, np.ndarray], mask: np.ndarray) -> list[np.ndarray]:
    """Return each row's logits as (n_predictions, n_choices), those of the padding left out."""
    rows = []
    for i, kept in enumerate(mask):
        if SPAN[0] in outputs:  # the two ends of an answer, each a choice among the tokens
            rows.append(np.stack([outputs[name][i][kept] for name in SPAN]))
        else:
            logits = outputs["logits"][i]
            rows.append(logits[kept] if logits.ndim == 2 else logits[None])
    return rows


def _check(proof: Proof, bounds: Bounds) -> None:
    """Raise `FtkitError` where the proof fails; a number that is none (NaN) fails too."""
    faults = []
    if bounds.weights is not None and not (proof.weights or 0.0) <= bounds.weights:
        faults.append(f"a matrix is {proof.weights:.1%} off (at most {bounds.weights:.1%})")
    if not proof.kl <= bounds.kl:
        faults.append(f"the KL divergence is {proof.kl:.3g} nats (at most {bounds.kl:g})")
    if not proof.agreement >= bounds.agreement:
        share, least = f"{proof.agreement:.1%}", f"{bounds.agreement:.0%}"
        faults.append(f"{share} of greedy predictions are equal (at least {least})")
    if proof.kl_untouched is not None and not proof.kl_untouched >= NEARER * proof.kl:
        faults.append(
            f"it is not clearly nearer to the tuned model (KL {proof.kl:.3g}) than to the "
            f"untouched {proof.untouched} (KL {proof.kl_untouched:.3g}; expected {NEARER:g} times "
            f"as much), so the training would be lost"
        )
    if faults:
        finer = {"q4_1": " Take --type q8_0.", "q8_0": " Take --type f16."}
        raise FtkitError(
            f"The {proof.format} export is refused and removed: {'; '.join(faults)}. Compared on "
            f"{proof.n_texts} texts, read by {proof.reader}.{finer.get(str(proof.type), '')}"
        )

"""Let a model write on: prompts of one batch padded on the left, and where an answer ends."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ftkit.data.batches import Batch

MAX_NEW_TOKENS = 256  # fewer where the model has fewer positions left


def pad_left(batch: Batch, pad_token_id: int | None) -> Batch:
    """Return a batch of prompts, padded on the right as `collate` pads, padded on the left.

    A prompt must not end in padding: the model writes on from its last token.

    Examples
    --------
    >>> ids, mask = torch.tensor([[5, 6], [7, 0]]), torch.tensor([[1, 1], [1, 0]])
    >>> pad_left({"input_ids": ids, "attention_mask": mask}, 0)["input_ids"].tolist()
    [[5, 6], [0, 7]]
    """
    shifts = batch["attention_mask"].shape[1] - batch["attention_mask"].sum(-1)
    rows = zip(batch["input_ids"], batch["attention_mask"], shifts.tolist(), strict=True)
    moved = [(ids.roll(shift), mask.roll(shift)) for ids, mask, shift in rows]
    ids = torch.stack([ids for ids, _ in moved])
    mask = torch.stack([mask for _, mask in moved])
    return {"input_ids": ids.masked_fill(mask == 0, pad_token_id or 0), "attention_mask": mask}


@torch.inference_mode()
def generate(model: Any, batch: Batch, max_new_tokens: int = MAX_NEW_TOKENS) -> list[np.ndarray]:
    """Return the tokens that a model adds to each prompt, up to the one that ends its answer.

    Greedily, unless ``model.generation_config`` says ``do_sample``.

    Parameters
    ----------
    model : PreTrainedModel
    batch : dict of Tensor
        ``input_ids`` and ``attention_mask`` of shape (batch, seq_len), from `collate`.
    max_new_tokens : int

    Returns
    -------
    list of ndarray of shape (n_new,)
        Without what follows an end; an end itself stays.
    """
    pad = model.config.pad_token_id or 0
    known = model.generation_config.eos_token_id
    ends = known if isinstance(known, list) else [known] if known is not None else []
    prompts = pad_left(batch, pad)
    rows, longest = prompts["input_ids"].shape
    positions = getattr(model.config, "max_position_embeddings", None) or 10**9
    if rows > 1 and longest + max_new_tokens > positions:  # each has another number of them left
        apart = [{name: t[i : i + 1] for name, t in batch.items()} for i in range(rows)]
        return [ids for row in apart for ids in generate(model, _trimmed(row), max_new_tokens)]
    whole = model.generate(
        **prompts,
        max_new_tokens=max(1, min(max_new_tokens, positions - longest)),
        pad_token_id=pad,
    )
    return [_until_end(row, ends) for row in whole[:, longest:].cpu().numpy()]


def _until_end(ids: np.ndarray, ends: Sequence[int]) -> np.ndarray:
    found = np.flatnonzero(np.isin(ids, ends))
    return ids[: found[0] + 1] if len(found) else ids


def _trimmed(row: Batch) -> Batch:
    """Return a batch of one row without its padding."""
    length = int(row["attention_mask"].sum())
    return {name: tensor[:, :length] for name, tensor in row.items()}

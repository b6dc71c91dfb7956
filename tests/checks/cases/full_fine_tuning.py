"""Right and wrong answers to the exercises on full fine-tuning."""

import copy
import math

import numpy as np
import torch
from torch import nn


def right_mask(rows):
    longest = max(map(len, rows))
    return torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])


def mask_of_nonzero_ids(rows):
    longest = max(map(len, rows))
    input_ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    return (input_ids != 0).long()


def right_steps(rows, batch_size, accumulation, epochs):
    return math.ceil(rows / (batch_size * accumulation)) * epochs


def whole_rate(step, total_steps, warmup_steps, peak):
    if step < warmup_steps:
        return peak * step / warmup_steps
    return peak * (total_steps - step) / (total_steps - warmup_steps)


def with_shares(rate):
    def answer(step, total_steps, warmup_steps, peak):
        if 0 < warmup_steps < 1:
            warmup_steps *= total_steps
        return rate(step, total_steps, warmup_steps, peak)

    return answer


def jumping_rate(step, total_steps, warmup_steps, peak):
    if step < warmup_steps:
        return peak * step / warmup_steps
    return peak * (1 - step / total_steps)


def rate_from_one(step, total_steps, warmup_steps, peak):
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak * (total_steps - step) / (total_steps - warmup_steps)


def dividing_rate(step, total_steps, warmup_steps, peak):
    up, down = step / warmup_steps, (total_steps - step) / (total_steps - warmup_steps)
    return peak * min(up, down)


def make_step(*, zero="first", clip=True, item=True, train=True, backward_first=True):
    """Return a training step, right or with one fault."""

    def training_step(model, batch, optimizer):
        if train:
            model.train()
        if zero == "first":
            optimizer.zero_grad()
        loss = model(**batch).loss
        if backward_first:
            loss.backward()
        if zero == "between":
            optimizer.zero_grad()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if not backward_first:
            loss.backward()
        if zero == "last":
            optimizer.zero_grad()
        return loss.item() if item else loss

    return training_step


def right_predict(model, batch):
    training = model.training
    model.eval()
    with torch.inference_mode():
        logits = model(**batch).logits
    model.train(training)
    return logits


def predict_with_dropout(model, batch):
    with torch.inference_mode():
        return model(**batch).logits


def predict_with_graph(model, batch):
    training = model.training
    logits = model.eval()(**batch).logits
    model.train(training)
    return logits


@torch.inference_mode()
def predict_and_stay(model, batch):
    return model.eval()(**batch).logits


@torch.inference_mode()
def predict_then_train(model, batch):
    logits = model.eval()(**batch).logits
    model.train()
    return logits


CASES = {
    "attention_mask": (
        right_mask,
        [
            (lambda rows: 1 - right_mask(rows), "other way round"),
            (lambda rows: torch.ones_like(right_mask(rows)), "every place"),
            (lambda rows: right_mask(rows).flip(1), "on the left"),
            (lambda rows: right_mask(rows)[:, :-1], "the shape is"),
            (mask_of_nonzero_ids, "real token"),
        ],
    ),
    "optimizer_steps": (
        right_steps,
        [
            (lambda r, b, a, e: r // (b * a) * e, "dropped"),
            (lambda r, b, a, e: math.ceil(r / b) * e, "micro-batches"),
            (lambda r, b, a, e: math.ceil(r * e / (b * a)), "next epoch"),
            (lambda r, b, a, e: math.ceil(r / (b * a)), "this is one epoch"),
            (lambda r, b, a, e: r / (b * a) * e, "whole number"),
            (lambda r, b, a, e: (r // (b * a) + 1) * e, "no extra update"),
        ],
    ),
    "learning_rate": (
        with_shares(whole_rate),
        [
            (lambda s, t, w, peak: whole_rate(s, t, w, 1.0), "multiply by it"),
            (lambda s, t, w, peak: peak * (1 - s / t), "warm-up is missing"),
            (rate_from_one, "count from 0"),
            (jumping_rate, "jumps"),
            (dividing_rate, "warmup_steps=0"),
            (whole_rate, "share of all steps"),
        ],
    ),
    "training_step": (
        make_step(),
        [
            (make_step(zero="never"), "gradients of the first are still there"),
            (make_step(zero="between"), "never between"),
            (make_step(backward_first=False, zero="first"), "never between"),
            (make_step(clip=False), "long gradient"),
            (make_step(item=False), "still a tensor"),
            (make_step(train=False), "model.train()"),
        ],
    ),
    "predict": (
        right_predict,
        [
            (predict_with_dropout, "dropout is on"),
            (predict_with_graph, "carry a graph"),
            (predict_and_stay, "left in eval mode"),
            (predict_then_train, "left in train mode"),
            (lambda model, batch: right_predict(model, batch).softmax(-1), "probabilities"),
            (lambda model, batch: right_predict(model, batch).argmax(-1), "no argmax"),
        ],
    ),
}


def mask_in_numpy(rows):
    lengths = np.array([len(row) for row in rows])
    return np.arange(lengths.max()) < lengths[:, None]


def mask_by_pad_sequence(rows):
    return nn.utils.rnn.pad_sequence([torch.ones(len(row)) for row in rows], batch_first=True)


def mask_as_lists(rows):
    longest = len(max(rows, key=len))
    return [[int(place < len(row)) for place in range(longest)] for row in rows]


def steps_in_a_loop(rows, batch_size, accumulation, epochs):
    steps = 0
    for _ in range(epochs):
        left = rows
        while left > 0:
            left -= batch_size * accumulation
            steps += 1
    return steps


def rate_to_the_last_step(step, total_steps, warmup_steps, peak):
    """Reach 0 at the last update itself, as the statement may be read."""
    if 0 < warmup_steps < 1:
        warmup_steps = int(warmup_steps * total_steps)
    if step < warmup_steps:
        return step / warmup_steps * peak
    return peak * (1 - (step - warmup_steps) / (total_steps - 1 - warmup_steps))


def rate_in_float32(step, total_steps, warmup_steps, peak):
    warmup = total_steps * warmup_steps if warmup_steps < 1 else warmup_steps
    up = np.float32(step) / np.float32(warmup) if warmup else 1
    return np.float32(peak) * min(up, np.float32(total_steps - step) / (total_steps - warmup), 1)


def rate_by_interpolation(step, total_steps, warmup_steps, peak):
    warmup = math.ceil(total_steps * warmup_steps) if warmup_steps < 1 else warmup_steps
    places, rates = (
        ([0, warmup, total_steps], [0, peak, 0]) if warmup else ([0, total_steps], [peak, 0])
    )
    return torch.tensor(np.interp(step, places, rates))


def step_by_hand(model, batch, optimizer):
    model.train()
    loss = torch.nn.functional.cross_entropy(model(batch["inputs"]).logits, batch["labels"])
    model.zero_grad()
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    for parameter in model.parameters():
        parameter.grad *= min(1, 1 / norm)
    optimizer.step()
    return float(loss.detach())


def step_in_numpy_and_out(model, batch, optimizer):
    optimizer.zero_grad(set_to_none=False)
    outputs = model.train()(inputs=batch["inputs"], labels=batch["labels"])
    outputs.loss.backward()
    torch.nn.utils.clip_grad_norm_(list(model.parameters()), 1)
    optimizer.step()
    return outputs.loss.detach().numpy()


def predict_without_grad(model, batch):
    was_training = model.training
    with torch.no_grad():
        outputs = model.eval()(**batch)
    if was_training:
        model.train()
    return outputs.logits


@torch.no_grad()
def predict_and_restore(model, batch):
    modes = {module: module.training for module in model.modules()}
    try:
        model.train(mode=False)
        return model(inputs=batch["inputs"]).logits.numpy()
    finally:
        for module, mode in modes.items():
            module.training = mode


ALTERNATIVES = {
    "attention_mask": [mask_in_numpy, mask_by_pad_sequence, mask_as_lists],
    "optimizer_steps": [
        steps_in_a_loop,
        lambda r, b, a, e: -(-r // (b * a)) * e,
        lambda r, b, a, e: np.ceil(r / b / a) * e,
        lambda r, b, a, e: e * len(range(0, r, b * a)),
    ],
    "learning_rate": [rate_to_the_last_step, rate_in_float32, rate_by_interpolation],
    "training_step": [make_step(zero="last"), step_by_hand, step_in_numpy_and_out],
    "predict": [
        predict_without_grad,
        predict_and_restore,
        lambda model, batch: right_predict(copy.deepcopy(model), batch),
    ],
}

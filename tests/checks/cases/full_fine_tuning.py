"""Right and wrong answers to the exercises on full fine-tuning."""

import math

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

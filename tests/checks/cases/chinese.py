"""Right and wrong answers to the exercises on Chinese."""

import re
import unicodedata

import numpy as np
import torch


def right_epoch(validation, test):
    best = max(range(len(validation)), key=lambda i: validation[i])
    return best + 1, test[best]


def epoch_by_test(validation, test):
    best = max(range(len(test)), key=lambda i: test[i])
    return best + 1, test[best]


def epoch_from_zero(validation, test):
    epoch, score = right_epoch(validation, test)
    return epoch - 1, score


def epoch_with_its_validation(validation, test):
    epoch, _ = right_epoch(validation, test)
    return epoch, max(validation)


def later_epoch(validation, test):
    best = max(range(len(validation)), key=lambda i: (validation[i], i))
    return best + 1, test[best]


def letters(text):
    return "".join(c for c in text if c.isalnum())


def right_key(text):
    return letters(unicodedata.normalize("NFKC", text).casefold())


def make_score(*, mask="one", special=False, log=True, sign=1, mean=False, clone=True):
    """Return a sentence's score, right or with one fault."""

    def sentence_score(model, input_ids, mask_id):
        places = range(len(input_ids)) if special else range(1, len(input_ids) - 1)
        read, original = input_ids.clone() if clone else input_ids, input_ids.clone()
        if mask == "all":
            read[1:-1] = mask_id
        scores = []
        for place in places:
            if mask in ("one", "pile"):
                read[place] = mask_id
            logits = model(input_ids=read[None]).logits[0, place]
            chance = logits.softmax(-1)[original[place]]
            scores.append(chance.log() if log else chance)
            if mask == "one" and clone:
                read[place] = original[place]
        total = sign * torch.stack(scores).sum()
        return (total / len(scores) if mean else total).item()

    return sentence_score


CASES = {
    "choose_epoch": (
        right_epoch,
        [
            (epoch_by_test, "chose by the test"),
            (epoch_from_zero, "epochs count from 1"),
            (lambda v, t: (len(v), t[-1]), "the last epoch is not"),
            (epoch_with_its_validation, "report the validation accuracy"),
            (later_epoch, "take the earlier one"),
        ],
    ),
    "honest_accuracy": (
        lambda score, leaked: (score - leaked) / (1 - leaked),
        [
            (lambda score, leaked: score - leaked, "divide by the share that is left"),
            (lambda score, leaked: score * (1 - leaked), "scales all right answers down"),
            (lambda score, leaked: score / (1 - leaked), "divide, but first"),
            (lambda score, leaked: leaked + (1 - leaked) * score, "the other way round"),
        ],
    ),
    "leak_key": (
        right_key,
        [
            (lambda text: text.strip(), "spaces and line ends"),
            (lambda text: "".join(text.split()), "capitals"),
            (lambda text: "".join(text.split()).casefold(), "width"),
            (
                lambda t: "".join(unicodedata.normalize("NFKC", t).casefold().split()),
                "a changed 。",
            ),
            (lambda text: re.sub(r"[^a-z]", "", right_key(text)), "same key"),
            (lambda text: "".join(sorted(right_key(text))), "the order is lost"),
            (lambda text: re.sub(r"\d", "", right_key(text)), "digits count"),
            (lambda text: re.sub("[a-z]", "", right_key(text)), "letters count"),
            (
                lambda t: re.sub(
                    r"[\s。！，、,!]", "", unicodedata.normalize("NFKC", t).casefold()
                ),
                "alone makes no new review",
            ),
        ],
    ),
    "sentence_score": (
        make_score(),
        [
            (make_score(mask="none"), "nothing is masked"),
            (make_score(mask="all"), "all tokens are masked at once"),
            (make_score(mask="pile"), "pile up"),
            (make_score(special=True), "leave them out"),
            (make_score(mean=True), "this is the mean"),
            (make_score(log=False), "these are probabilities"),
            (make_score(sign=-1), "the sign"),
            (make_score(mask="pile", clone=False), "wrote over input_ids"),
        ],
    ),
}


def epoch_in_a_loop(validation, test):
    best = 0
    for i in range(1, len(validation)):
        if validation[i] > validation[best]:
            best = i
    return [best + 1, test[best]]


def epoch_in_torch(validation, test):
    best = torch.tensor(validation).argmax()
    return torch.stack([best + 1, torch.tensor(test)[best]])


def key_by_category(text):
    plain = unicodedata.normalize("NFKC", text).lower()
    return "".join(c for c in plain if unicodedata.category(c)[0] in "LN")


def score_in_one_batch(model, input_ids, mask_id):
    places = torch.arange(1, len(input_ids) - 1)
    batch = input_ids.repeat(len(places), 1)
    batch[range(len(places)), places] = mask_id
    logits = model(input_ids=batch).logits[range(len(places)), places]
    return logits.log_softmax(-1)[range(len(places)), input_ids[places]].sum()


def score_in_numpy(model, input_ids, mask_id):
    total = np.float32(0)
    for place, token in list(enumerate(input_ids.tolist()))[1:-1]:
        hidden = torch.where(torch.arange(len(input_ids)) == place, mask_id, input_ids)
        logits = model(input_ids=hidden.unsqueeze(0)).logits[0, place].detach().numpy()
        total += logits[token] - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
    return total


def score_by_cross_entropy(model, input_ids, mask_id):
    losses = []
    for i in range(1, len(input_ids) - 1):
        read = [*input_ids[:i].tolist(), mask_id, *input_ids[i + 1 :].tolist()]
        logits = model(input_ids=torch.tensor([read])).logits[:, i]
        losses.append(torch.nn.functional.cross_entropy(logits, input_ids[i : i + 1]).item())
    return -sum(losses)


ALTERNATIVES = {
    "choose_epoch": [
        epoch_in_a_loop,
        epoch_in_torch,
        lambda v, t: (np.argmax(v) + 1, np.float32(t[np.argmax(v)])),
        lambda v, t: (v.index(max(v)) + 1, t[v.index(max(v))]),
    ],
    "honest_accuracy": [
        lambda score, leaked: 1 - (1 - score) / (1 - leaked),
        lambda score, leaked: np.float32(score - leaked) / np.float32(1 - leaked),
        lambda score, leaked: torch.tensor(score).sub(leaked).div(1 - leaked),
    ],
    "leak_key": [
        key_by_category,
        lambda text: re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).casefold()),
        lambda text: [
            c.lower()
            for c in unicodedata.normalize("NFKD", text)
            if unicodedata.category(c)[0] in "LN"
        ],
        lambda text: hash(right_key(text)),
    ],
    "sentence_score": [score_in_one_batch, score_in_numpy, score_by_cross_entropy],
}

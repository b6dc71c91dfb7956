"""Right and wrong answers to the exercises on Chinese."""

import re
import unicodedata

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

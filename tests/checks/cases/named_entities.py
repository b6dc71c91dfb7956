"""Right and wrong answers to the exercises on named entities."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import torch


def right_labels(word_ids, labels):
    row, before = [], None
    for word in word_ids:
        row.append(-100 if word is None or word == before else labels[word])
        before = word
    return row


def all_pieces(word_ids, labels):
    return [-100 if word is None else labels[word] for word in word_ids]


def special_is_o(word_ids, labels):
    return [
        0 if w is None else r for w, r in zip(word_ids, right_labels(word_ids, labels), strict=True)
    ]


def rest_is_o(word_ids, labels):
    rows = zip(word_ids, right_labels(word_ids, labels), strict=True)
    return [0 if word is not None and label == -100 else label for word, label in rows]


def last_piece(word_ids, labels):
    return right_labels(word_ids[::-1], labels)[::-1]


def words_only(word_ids, labels):
    return labels


def right_bio(size, entities):
    tags = ["O"] * size
    for start, end, kind in entities:
        tags[start:end] = [f"B-{kind}", *[f"I-{kind}"] * (end - start - 1)]
    return tags


def too_long(size, entities):
    return right_bio(size, [(start, end + 1, kind) for start, end, kind in entities])[:size]


def no_b(size, entities):
    return [tag.replace("B-", "I-") for tag in right_bio(size, entities)]


def all_b(size, entities):
    return [tag.replace("I-", "B-") for tag in right_bio(size, entities)]


def b_only_at_need(size, entities):
    """B- only where the word before is outside: neighbours merge."""
    pairs = pairwise(["O", *right_bio(size, entities)])
    return [tag.replace("B-", "I-") if old[2:] == tag[2:] else tag for old, tag in pairs]


def zeros(size, entities):
    return ["0" if tag == "O" else tag for tag in right_bio(size, entities)]


def right_repair(tags):
    fixed = []
    for i, tag in enumerate(tags):
        before = tags[i - 1] if i else "O"
        begins = tag.startswith("I-") and before[2:] != tag[2:]
        fixed.append(f"B-{tag[2:]}" if begins else tag)
    return fixed


def in_place(tags):
    tags[:] = right_repair(tags)
    return tags


def to_o(tags):
    return ["O" if new != old else old for new, old in zip(right_repair(tags), tags, strict=True)]


def after_o_only(tags):
    pairs = pairwise(["O", *tags])
    return [f"B-{tag[2:]}" if tag[0] == "I" and old == "O" else tag for old, tag in pairs]


def first_forgotten(tags):
    return tags[:1] + right_repair(tags)[1:]


def all_become_b(tags):
    return [tag.replace("I-", "B-") for tag in tags]


def f1(hits, total):
    return 2 * hits / total if total else 0.0


def of(kind, rows):
    return [{span for span in row if span[2] == kind} for row in rows]


def counts(guesses, truths):
    hits = sum(len(a & b) for a, b in zip(guesses, truths, strict=True))
    return hits, sum(map(len, guesses)), sum(map(len, truths))


def right_f1(guesses, truths, kind):
    hits, found, there = counts(of(kind, guesses), of(kind, truths))
    return f1(hits, found + there)


def all_types(guesses, truths, kind):
    hits, found, there = counts(guesses, truths)
    return f1(hits, found + there)


def mean_of_sentences(guesses, truths, kind):
    pairs = list(zip(of(kind, guesses), of(kind, truths), strict=True))
    return sum(f1(len(a & b), len(a) + len(b)) for a, b in pairs) / len(pairs)


def pooled(guesses, truths, kind):
    mine, yours = (set().union(*of(kind, rows)) for rows in (guesses, truths))
    return f1(len(mine & yours), len(mine) + len(yours))


def overlap(guesses, truths, kind):
    pairs = list(zip(of(kind, guesses), of(kind, truths), strict=True))
    hits = sum(any(g[0] < t[1] and t[0] < g[1] for t in b) for a, b in pairs for g in a)
    return f1(hits, sum(len(a) + len(b) for a, b in pairs))


def precision(guesses, truths, kind):
    hits, found, _ = counts(of(kind, guesses), of(kind, truths))
    return hits / max(found, 1)


def recall(guesses, truths, kind):
    hits, _, there = counts(of(kind, guesses), of(kind, truths))
    return hits / max(there, 1)


def divides(guesses, truths, kind):
    hits, found, there = counts(of(kind, guesses), of(kind, truths))
    return 2 * hits / (found + there)


CASES = {
    "token_labels": (
        right_labels,
        [
            (all_pieces, "every piece has its word's label"),
            (special_is_o, "a special token such as [CLS] is no word"),
            (rest_is_o, "0 is the label of O"),
            (last_piece, "you label the last piece"),
            (words_only, "one label a token is wanted"),
        ],
    ),
    "to_bio": (
        right_bio,
        [
            (too_long, "one word too long"),
            (no_b, "no entity begins with B-"),
            (all_b, "every word has B-"),
            (b_only_at_need, "two neighbours became one"),
            (zeros, 'the tag "O", the letter'),
        ],
    ),
    "repair": (
        right_repair,
        [
            (to_o, "you drop entities"),
            (after_o_only, "of another type begins one too"),
            (first_forgotten, "the very first tag"),
            (all_become_b, "that goes on with an entity stays I-"),
            (in_place, "changes the list that it is given"),
        ],
    ),
    "type_f1": (
        right_f1,
        [
            (all_types, "all types together"),
            (mean_of_sentences, "the mean of the sentences' own F1"),
            (pooled, "all sentences into one set"),
            (overlap, "you count an overlap as right"),
            (precision, "this is the precision"),
            (recall, "this is the recall"),
            (divides, "by custom F1 is 0"),
        ],
    ),
}


def labels_by_index(word_ids, labels):
    return [
        -100 if word is None or i != word_ids.index(word) else labels[word]
        for i, word in enumerate(word_ids)
    ]


def labels_in_numpy(word_ids, labels):
    words = np.array([-1 if word is None else word for word in word_ids])
    first = (words >= 0) & (words != np.roll(words, 1))
    return np.where(first, np.array([*labels, -100])[words], -100)


def labels_in_torch(word_ids, labels):
    row = torch.full((len(word_ids),), -100)
    for word in range(len(labels)):
        row[word_ids.index(word)] = labels[word]
    return row


def bio_word_by_word(size, entities):
    tags = []
    for word in range(size):
        inside = [(s, kind) for s, e, kind in entities if s <= word < e]
        tags.append(("B-" if inside[0][0] == word else "I-") + inside[0][1] if inside else "O")
    return tuple(tags)


def bio_in_numpy(size, entities):
    tags = np.full(size, "O", dtype=object)
    for start, end, kind in entities:
        tags[start:end] = f"I-{kind}"
        tags[start] = f"B-{kind}"
    return tags


def bio_from_pieces(size, entities):
    tags = []
    for start, end, kind in sorted(entities):
        tags += ["O"] * (start - len(tags)) + [f"B-{kind}"] + [f"I-{kind}"] * (end - start - 1)
    return tags + ["O"] * (size - len(tags))


def repair_by_state(tags):
    fixed, kind = [], None
    for tag in tags:
        prefix, _, name = tag.partition("-")
        fixed.append("B-" + name if prefix == "I" and name != kind else tag)
        kind = name
    return fixed


def repair_in_numpy(tags):
    before = ["O", *tags[:-1]]
    stray = [t[0] == "I" and b[1:] != t[1:] for b, t in zip(before, tags, strict=True)]
    return np.where(stray, ["B" + tag[1:] for tag in tags], tags)


def repair_a_copy(tags):
    copied = list(tags)
    for i in range(len(tags)):
        if tags[i].startswith("I") and (i == 0 or tags[i - 1].split("-")[-1] != tags[i][2:]):
            copied[i] = tags[i].replace("I", "B", 1)
    return tuple(copied)


def f1_of_numbered(guesses, truths, kind):
    mine = {(i, *span) for i, row in enumerate(guesses) for span in row if span[2] == kind}
    yours = {(i, *span) for i, row in enumerate(truths) for span in row if span[2] == kind}
    return Fraction(2 * len(mine & yours), len(mine) + len(yours)) if mine or yours else 0


def f1_in_numpy(guesses, truths, kind):
    hits, found, there = np.array(counts(of(kind, guesses), of(kind, truths)), dtype=np.float32)
    return 2 * hits / max(found + there, np.float32(1))


def f1_by_precision_and_recall(guesses, truths, kind):
    tp = fp = fn = 0
    for guess, truth in zip(of(kind, guesses), of(kind, truths), strict=True):
        tp, fp, fn = tp + len(guess & truth), fp + len(guess - truth), fn + len(truth - guess)
    if tp == 0:
        return 0.0
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    return torch.tensor(2 * precision * recall / (precision + recall))


ALTERNATIVES = {
    "token_labels": [labels_by_index, labels_in_numpy, labels_in_torch],
    "to_bio": [bio_word_by_word, bio_in_numpy, bio_from_pieces],
    "repair": [repair_by_state, repair_in_numpy, repair_a_copy],
    "type_f1": [f1_of_numbered, f1_in_numpy, f1_by_precision_and_recall],
}

"""Right and wrong answers to the exercises on question answering."""

from collections import Counter

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from ftkit.metrics.squad import normalize_answer


def right_windows(n_tokens, size, stride):
    found, start = [], 0
    while True:
        found.append((start, min(start + size, n_tokens)))
        if start + size >= n_tokens:
            return found
        start += size - stride


def windows_by_stride(n_tokens, size, stride):
    return right_windows(n_tokens, size, size - stride)


def too_many_windows(n_tokens, size, stride):
    starts = range(0, n_tokens, size - stride)
    found = [(start, min(start + size, n_tokens)) for start in starts]
    last = found[-1]
    return [*found, (last[1] - 1, last[1])]


def long_last_window(n_tokens, size, stride):
    return [(start, start + size) for start, _ in right_windows(n_tokens, size, stride)]


def dropped_rest(n_tokens, size, stride):
    return [
        (s, e) for s, e in right_windows(n_tokens, size, stride) if e - s == size or n_tokens < size
    ]


def always_a_full_window(n_tokens, size, stride):
    return right_windows(n_tokens, size, stride) if n_tokens >= size else []


def right_positions(offsets, start, end):
    inside = [i for i, (first, last) in enumerate(offsets) if last > first]
    if offsets[inside[0]][0] > start or offsets[inside[-1]][1] < end:
        return 0, 0
    touched = [i for i in inside if offsets[i][1] > start and offsets[i][0] < end]
    return touched[0], touched[-1]


def window_after_an_exact_fit(n_tokens, size, stride):
    found = [(0, min(size, n_tokens))]
    while found[-1][0] + size <= n_tokens:
        start = found[-1][0] + size - stride
        found.append((start, min(start + size, n_tokens)))
    return found


def positions_without_left_edge(offsets, start, end):
    inside = [i for i, (first, last) in enumerate(offsets) if last > first]
    touched = [i for i in inside if offsets[i][1] > start and offsets[i][0] < end]
    if not touched or offsets[inside[-1]][1] < end:
        return 0, 0
    return touched[0], touched[-1]


def positions_of_equal_offsets(offsets, start, end):
    first = [i for i, (begin, stop) in enumerate(offsets) if begin == start and stop > begin]
    last = [i for i, (begin, stop) in enumerate(offsets) if stop == end and stop > begin]
    return (first[0], last[0]) if first and last else (0, 0)


def positions_without_edges(offsets, start, end):
    touched = [
        i
        for i, (first, last) in enumerate(offsets)
        if first < last and last > start and first < end
    ]
    return (touched[0], touched[-1]) if touched else (0, 0)


def positions_from_context(offsets, start, end):
    n_question = next(i for i, (first, last) in enumerate(offsets) if last > first)
    first, last = right_positions(offsets, start, end)
    return first - n_question, last - n_question


def positions_without_window(offsets, start, end):
    inside = [i for i, (first, last) in enumerate(offsets) if last > first]
    first = max((i for i in inside if offsets[i][0] <= start), default=inside[0])
    return first, min((i for i in inside if offsets[i][1] >= end), default=inside[-1])


def right_loss(start_logits, end_logits, starts, ends):
    return (cross_entropy(start_logits, starts) + cross_entropy(end_logits, ends)) / 2


def f1(prediction, answer, shared=None):
    words, wanted = normalize_answer(prediction).split(), normalize_answer(answer).split()
    count = (Counter(words) & Counter(wanted)).total() if shared is None else shared(words, wanted)
    return 2 * count / (len(words) + len(wanted))


def right_f1(prediction, answers):
    return max(f1(prediction, answer) for answer in answers)


def f1_of_members(prediction, answers):
    return max(f1(prediction, a, lambda p, w: sum(word in w for word in p)) for a in answers)


def raw_f1(prediction, answers):
    def one(answer):
        words, wanted = prediction.split(), answer.split()
        return 2 * (Counter(words) & Counter(wanted)).total() / (len(words) + len(wanted))

    return max(one(answer) for answer in answers)


def dividing_f1(prediction, answers):
    def one(answer):
        words, wanted = normalize_answer(prediction).split(), normalize_answer(answer).split()
        shared = (Counter(words) & Counter(wanted)).total()
        precision, recall = shared / len(words), shared / len(wanted)
        return 2 * precision * recall / (precision + recall)

    return max(one(answer) if set(answer.split()) & set(prediction.split()) or len(answers) == 1
               else 0.0 for answer in answers)  # fmt: skip


def precision_only(prediction, answers):
    words = normalize_answer(prediction).split()
    return max(
        (Counter(words) & Counter(normalize_answer(a).split())).total() / len(words)
        for a in answers
    )


def search(start, end, mask, max_tokens, *, order=True, inside=True, extra=0):
    """Return the best pair under some of the rules."""
    size = len(mask)
    pairs = [
        (s, e)
        for s in range(size)
        for e in range(size)
        if (not order or s <= e < s + max_tokens + extra) and (not inside or (mask[s] and mask[e]))
    ]
    return max(pairs, key=lambda pair: float(start[pair[0]] + end[pair[1]]))


def right_span(start, end, mask, max_tokens):
    return search(start, end, mask, max_tokens)


def two_argmaxes(start, end, mask, max_tokens):
    blocked = torch.where(mask, 0.0, -torch.inf)
    return int((start + blocked).argmax()), int((end + blocked).argmax())


def greedy_span(start, end, mask, max_tokens):
    blocked = torch.where(mask, 0.0, -torch.inf)
    first = int((start + blocked).argmax())
    return first, first + int((end + blocked)[first : first + max_tokens].argmax())


CASES = {
    "windows": (
        right_windows,
        [
            (windows_by_stride, "move on by the stride"),
            (lambda n, size, stride: right_windows(n, size, 0), "share nothing"),
            (dropped_rest, "stand in no window"),
            (long_last_window, "reaches beyond"),
            (too_many_windows, "one window too many"),
            (window_after_an_exact_fit, "one window too many"),
            (always_a_full_window, "shorter than a window"),
        ],
    ),
    "token_positions": (
        right_positions,
        [
            (lambda offsets, start, end: (start, end), "these are characters"),
            (positions_from_context, "count from the context"),
            (
                lambda o, s, e: (right_positions(o, s, e)[0], right_positions(o, s, e)[1] + 1),
                "one too far",
            ),
            (lambda o, s, e: (right_positions(o, s, e)[0],) * 2, "first token only"),
            (positions_without_edges, "the window cuts"),
            (positions_without_left_edge, "the window cuts"),
            (positions_of_equal_offsets, "inside a token"),
            (positions_without_window, "both labels are 0"),
        ],
    ),
    "span_loss": (
        right_loss,
        [
            (lambda s, e, a, b: 2 * right_loss(s, e, a, b), "the sum of both"),
            (lambda s, e, a, b: cross_entropy(s, a), "the start alone"),
            (lambda s, e, a, b: cross_entropy(e, b), "the end alone"),
            (lambda s, e, a, b: right_loss(s, e, b, a), "swapped"),
            (lambda s, e, a, b: -right_loss(s, e, a, b), "the sign"),
            (lambda s, e, a, b: cross_entropy(s, a, reduction="none"), "one number is wanted"),
        ],
    ),
    "answer_f1": (
        right_f1,
        [
            (f1_of_members, "no sets"),
            (lambda p, answers: f1(p, answers[0]), "several answers"),
            (raw_f1, "normalise both first"),
            (dividing_f1, "not 0/0"),
            (precision_only, "the precision"),
        ],
    ),
    "best_span": (
        right_span,
        [
            (two_argmaxes, "before the start"),
            (lambda *args: search(*args, inside=False), "leaves the context"),
            (lambda *args: search(*args, extra=1), "one token too long"),
            (lambda *args: search(*args, extra=99), "too long: at most"),
            (greedy_span, "best start first"),
        ],
    ),
}


def windows_by_count(n_tokens, size, stride):
    step = size - stride
    count = max(1, -(-(n_tokens - stride) // step))
    return [(i * step, min(i * step + size, n_tokens)) for i in range(count)]


def windows_by_generator(n_tokens, size, stride):
    starts = range(0, max(n_tokens - stride, 1), size - stride)
    return [[start, min(start + size, n_tokens)] for start in starts]


def windows_in_torch(n_tokens, size, stride):
    return torch.tensor(right_windows(n_tokens, size, stride))


def positions_of_the_last_character(offsets, start, end):
    """Read `end` as the place of the answer's last character."""
    inside = [i for i, (first, last) in enumerate(offsets) if last > first]
    if not offsets[inside[0]][0] <= start or not end < offsets[inside[-1]][1]:
        return 0, 0
    first = next(i for i in inside if offsets[i][1] > start)
    return first, next(i for i in inside if offsets[i][0] <= end < offsets[i][1])


def positions_in_numpy(offsets, start, end):
    firsts, lasts = np.array(offsets).T
    context = np.flatnonzero(lasts > firsts)
    if start < firsts[context[0]] or end > lasts[context[-1]]:
        return np.zeros(2, int)
    touched = np.flatnonzero((lasts > start) & (firsts < end) & (lasts > firsts))
    return touched[[0, -1]]


def positions_by_walking(offsets, start, end):
    left = next(i for i, (first, last) in enumerate(offsets) if first < last)
    right = max(i for i, (first, last) in enumerate(offsets) if first < last)
    if offsets[left][0] > start or offsets[right][1] < end:
        return [0, 0]
    while offsets[left][1] <= start:
        left += 1
    while offsets[right][0] >= end:
        right -= 1
    return [left, right] if left <= right else [0, 0]


def positions_of_characters(offsets, start, end):
    holds = {c: i for i, (first, last) in enumerate(offsets) for c in range(first, last)}
    if start not in holds or end - 1 not in holds:
        return torch.tensor([0, 0])
    return torch.tensor([holds[start], holds[end - 1]])


def loss_in_numpy(start_logits, end_logits, starts, ends):
    total = 0.0
    for logits, places in ((start_logits, starts), (end_logits, ends)):
        z = logits.numpy() - logits.numpy().max(axis=1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        total -= log_p[np.arange(len(z)), places.numpy()].mean()
    return total / 2


def loss_in_a_loop(start_logits, end_logits, starts, ends):
    losses = []
    for i in range(len(starts)):
        losses.append(-start_logits[i].log_softmax(0)[starts[i]].item())
        losses.append(-end_logits[i].log_softmax(0)[ends[i]].item())
    return sum(losses) / len(losses)


def f1_by_removing(prediction, answers):
    best = 0
    for answer in answers:
        words, wanted = normalize_answer(prediction).split(), normalize_answer(answer).split()
        left, shared = list(wanted), 0
        for word in words:
            if word in left:
                left.remove(word)
                shared += 1
        best = max(best, 2 * shared / (len(words) + len(wanted)))
    return best


def f1_by_both(prediction, answers):
    def one(answer):
        words, wanted = (Counter(normalize_answer(t).split()) for t in (prediction, answer))
        shared = sum(min(words[word], wanted[word]) for word in words)
        if not shared:
            return 0
        precision, recall = shared / sum(words.values()), shared / sum(wanted.values())
        return 2 * precision * recall / (precision + recall)

    return np.max([one(answer) for answer in answers]).astype(np.float32)


def span_by_table(start, end, mask, max_tokens):
    scores = start[:, None] + end
    allowed = (mask[:, None] & mask).triu() & torch.ones_like(scores).tril(max_tokens - 1).bool()
    place = torch.where(allowed, scores, -torch.inf).argmax()
    return torch.stack([place // len(mask), place % len(mask)])


def span_in_a_loop(start, end, mask, max_tokens):
    best, found = -np.inf, (0, 0)
    for e in range(len(end)):
        for s in range(max(0, e - max_tokens + 1), e + 1):
            if mask[s] and mask[e] and start[s].item() + end[e].item() > best:
                best, found = start[s].item() + end[e].item(), (s, e)
    return list(found)


def span_in_numpy(start, end, mask, max_tokens):
    places = np.arange(len(mask))
    length = places - places[:, None] + 1
    scores = start.numpy()[:, None] + end.numpy()
    scores[(length < 1) | (length > max_tokens) | ~np.outer(mask, mask)] = -np.inf
    return np.unravel_index(scores.argmax(), scores.shape)


ALTERNATIVES = {
    "windows": [windows_by_count, windows_by_generator, windows_in_torch],
    "token_positions": [
        positions_in_numpy,
        positions_by_walking,
        positions_of_characters,
        positions_of_the_last_character,
    ],
    "span_loss": [
        loss_in_numpy,
        loss_in_a_loop,
        lambda s, e, a, b: cross_entropy(torch.cat([s, e]), torch.cat([a, b])),
    ],
    "answer_f1": [
        f1_by_removing,
        f1_by_both,
        lambda p, answers: torch.tensor([f1(p, answer) for answer in answers]).max(),
    ],
    "best_span": [span_by_table, span_in_a_loop, span_in_numpy],
}

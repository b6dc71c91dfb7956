"""Right and wrong answers to the exercises on hybrid fine-tuning and LoRA."""


def _forward(x, weight, bias, a, b, alpha):
    return x @ weight.T + bias + alpha / len(a) * (x @ a.T @ b.T)


def _stage(step, total_steps, schedule):
    return [tune for share, tune in schedule if share * total_steps <= step][-1]


def _merge_in_place(weight, a, b, alpha):
    weight += alpha / len(a) * b @ a
    return weight


CASES = {
    "lora_parameters": (
        lambda i, o, r: r * (i + o),
        [
            (lambda i, o, r: i * o, "size of W itself"),
            (lambda i, o, r: r * i, "A alone"),
            (lambda i, o, r: r * o, "B alone"),
            (lambda i, o, r: i + o, "right for r = 1"),
            (lambda i, o, r: r * i * r * o, "do not multiply"),
            (lambda i, o, r: i * o + r * (i + o), "W is frozen"),
            (lambda i, o, r: 0, "count the numbers in both"),
        ],
    ),
    "layer_rate": (
        lambda rate, decay, layer, n: rate * decay ** (n - 1 - layer),
        [
            (lambda rate, decay, layer, n: rate * decay**layer, "counts from the bottom"),
            (lambda rate, decay, layer, n: rate * decay ** (n - layer), "one factor too many"),
            (lambda rate, decay, layer, n: rate / decay ** (n - 1 - layer), "do not divide"),
            (lambda rate, decay, layer, n: rate * decay * (n - 1 - layer), "a power, not"),
            (lambda rate, decay, layer, n: rate, "once for each layer above"),
        ],
    ),
    "lora_forward": (
        _forward,
        [
            (
                lambda x, w, bias, a, b, alpha: x @ w.T + bias + len(a) / alpha * (x @ a.T @ b.T),
                "upside down",
            ),
            (lambda x, w, bias, a, b, alpha: x @ w.T + bias + x @ a.T @ b.T, "not scaled"),
            (
                lambda x, w, bias, a, b, alpha: x @ w.T + bias + alpha * (x @ a.T @ b.T),
                "alpha alone",
            ),
            (
                lambda x, w, bias, a, b, alpha: x @ w.T + alpha / len(a) * (x @ a.T @ b.T),
                "bias is missing",
            ),
            (lambda x, w, bias, a, b, alpha: alpha / len(a) * (x @ a.T @ b.T), "without W x"),
            (
                lambda x, w, bias, a, b, alpha: alpha / len(a) * (x @ w.T + bias + x @ a.T @ b.T),
                "scales the update alone",
            ),
            (
                lambda x, w, bias, a, b, alpha: x @ w.T + bias + alpha / len(a) * (x @ b @ a),
                "A and B are swapped",
            ),
            (lambda x, w, bias, a, b, alpha: x @ w.T + bias + x @ a @ b, "shapes do not fit"),
            (lambda x, w, bias, a, b, alpha: x @ w.T + bias, "this is not W x"),
        ],
    ),
    "merge": (
        lambda w, a, b, alpha: w + alpha / len(a) * b @ a,
        [
            (lambda w, a, b, alpha: w + b @ a, "scale is missing"),
            (lambda w, a, b, alpha: w + len(a) / alpha * b @ a, "upside down"),
            (lambda w, a, b, alpha: alpha / len(a) * b @ a, "update alone"),
            (lambda w, a, b, alpha: alpha / len(a) * (w + b @ a), "W is scaled too"),
            (lambda w, a, b, alpha: w + alpha / len(a) * (b @ a).T, "transposed"),
            (lambda w, a, b, alpha: w + alpha / len(a) * a @ b, "A @ B has not"),
            (_merge_in_place, "changed W itself"),
            (lambda w, a, b, alpha: w, "not yet"),
        ],
    ),
    "stage": (
        _stage,
        [
            (
                lambda step, n, plan: next(t for s, t in plan if s * n <= step),
                "holds for ever",
            ),
            (lambda step, n, plan: [t for s, t in plan if s <= step][-1], "Shares are no steps"),
            (
                lambda step, n, plan: ([t for s, t in plan if s * n < step] or ["head"])[-1],
                "one step late",
            ),
            (lambda step, n, plan: plan, "expected"),
        ],
    ),
}

"""Checks of notebook 04: causal labels, bits per character, blocks, masked tokens."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from ftkit.checks import Case, ask, check, draw, expect, integers, parts

Function = Callable[..., Any]


@check("Position t answers for token t + 1; padding and the end of a row answer for nothing.")
def causal_labels(answer: Function, seed: int = 0) -> None:
    """Check labels shifted by one, with -100 for padding and at the end."""
    generator = Generator().manual_seed(seed)
    for batch, seq_len in ((3, 6), (5, 9), (2, 14)):
        pad_id = int(torch.randint(50, (), generator=generator))
        input_ids, real = _padded(generator, batch, seq_len, pad_id)
        given = input_ids.clone()
        labels = integers(answer(input_ids, pad_id))
        expect(
            labels.shape == given.shape,
            f"the shape is {tuple(labels.shape)}; expected {tuple(given.shape)}, with -100 where "
            "nothing follows.",
        )
        expect(torch.equal(input_ids, given), "you wrote over input_ids: clone them first.")
        _judge_shift(labels, given, real)
        after = torch.zeros_like(real)
        after[:, :-1] = real[:, 1:]  # True where the next token is real
        expect(
            not torch.equal(labels[:, -1], given[:, 0]),
            "the last position got the row's first token, as torch.roll does: nothing follows it, "
            "so its label is -100.",
        )
        expect(
            (labels[:, -1] == -100).all(), "nothing follows the last position: its label is -100."
        )
        expect(
            (labels[~after] == -100).all(),
            "padding is labelled: where the next token is padding, the label is -100.",
        )


def _padded(generator: Generator, batch: int, seq_len: int, pad_id: int) -> tuple[Tensor, Tensor]:
    """Return ids padded at the right, no two alike, the first row full; and where they are real."""
    # 3 at least, so that the middle shows a shift
    lengths = torch.randint(3, seq_len, (batch, 1), generator=generator)
    lengths[0] = seq_len
    real = torch.arange(seq_len) < lengths
    input_ids = 50 + torch.randperm(4950, generator=generator)[: batch * seq_len]
    return input_ids.view(batch, seq_len).masked_fill(~real, pad_id), real


def _judge_shift(labels: Tensor, ids: Tensor, real: Tensor) -> None:
    """Compare the labels of all tokens that have a real token on both sides."""
    middle = real[:, 2:]
    own = labels[:, 1:-1][middle]
    expect(
        not torch.equal(own, ids[:, 1:-1][middle]),
        "there is no shift: each label is the token that the position itself reads, so there is "
        "nothing to predict.",
    )
    expect(
        not torch.equal(own, ids[:, :-2][middle]),
        "you shift the wrong way: position t has the token before it as its label, not the next.",
    )
    first = real[:, 1:]
    expect(
        torch.equal(labels[:, :-1][first], ids[:, 1:][first]),
        "where a real token follows, the label is that token: input_ids[:, 1:] beside [:, :-1].",
    )


@check("Bits, because of ln 2; per character, because every tokenizer has the same characters.")
def bits_per_character(answer: Function, seed: int = 0) -> None:
    """Check the sum of nats in bits, divided by the number of characters."""
    generator = Generator().manual_seed(seed)
    ask(
        answer,
        *(draw(_bits_case, generator, n_tokens) for n_tokens in (40, 150, 400)),
        otherwise="the sum of the losses, over ln 2, over the characters: not yet.",
    )


def _bits_case(generator: Generator, n_tokens: int) -> Case:
    losses = 0.5 + 4 * torch.rand(n_tokens, generator=generator)
    text = _text(generator, 2 * n_tokens + int(torch.randint(1, 9, (), generator=generator)))
    bits = losses.double().sum().item() / math.log(2)
    n_bytes, n_words = len(text.encode()), len(text.split())
    mistakes = {
        "these are nats: a bit is ln 2 nats, so divide by ln 2.": bits * math.log(2) / len(text),
        "you multiply by ln 2: there are more bits than nats, so divide.": (
            bits * math.log(2) ** 2 / len(text)
        ),
        "this is per token: divide by the number of characters, len(text).": bits / n_tokens,
        "this is per byte: a letter such as é takes two. Count characters: len(text).": (
            bits / n_bytes
        ),
        "this is per word: divide by the number of characters.": bits / n_words,
        "this is the sum over the text: divide by its characters.": bits,
        "you take the mean loss of a token: add the losses up first.": bits / n_tokens / len(text),
    }
    return Case((losses, text), bits / len(text), mistakes)


def _text(generator: Generator, length: int) -> str:
    """Return random letters, some of which take two or three bytes, in words."""
    letters = "abcdefghijéäø水壶 "
    places = torch.randint(len(letters), (length - 4,), generator=generator)
    return "".join(("é a", *(letters[i] for i in places.tolist()), "b"))


@check("One long row with an end after each text: no padding, no token wasted but the last few.")
def group_into_blocks(answer: Function, seed: int = 0) -> None:
    """Check blocks of equal length cut from texts that are joined with an end-of-text."""
    generator = Generator().manual_seed(seed)
    for size, n_texts in ((4, 7), (8, 12), (5, 3)):
        end_id = int(torch.randint(50, (), generator=generator))
        drawn = torch.randint(1, 2 * size, (n_texts - 1,), generator=generator).tolist()
        lengths = [2 * size + 1, *drawn]
        if (sum(lengths) + n_texts) % size == 0:
            lengths[-1] += 1  # so that there is a rest
        ids = (50 + torch.randperm(4950, generator=generator)).tolist()
        texts = [[ids.pop() for _ in range(length)] for length in lengths]
        _judge_blocks(answer([list(text) for text in texts], end_id, size), texts, end_id, size)


def _judge_blocks(value: Any, texts: list[list[int]], end_id: int, size: int) -> None:
    """Compare blocks with those of the joined texts, and name the mistake."""
    blocks = [integers(block).tolist() for block in value]
    joined = [i for text in texts for i in [*text, end_id]]
    n_blocks = len(joined) // size
    expect(blocks, f"there is no block; expected {n_blocks} of {size} ids.")
    expect(
        [block[:1] for block in blocks] != [text[:1] for text in texts],
        "each text has a block of its own, so texts are cut or filled up: join all of them first.",
    )
    expect(
        any(end_id in block for block in blocks),
        "there is no end-of-text between the texts: the model would read two as one.",
    )
    expect(blocks[0][0] != end_id, "end-of-text stands before each text: it belongs after.")
    expect(
        len(blocks) <= n_blocks,
        "the rest that does not fill a block is kept: drop it, or it will not fit a tensor.",
    )
    expect(
        blocks == [joined[i * size : (i + 1) * size] for i in range(n_blocks)],
        f"expected {n_blocks} blocks of {size}, cut one after another from the joined texts, "
        "end-of-text after each, the rest dropped.",
    )


@check("Labels at 15 %; mostly [MASK] there, sometimes not, so that every vector has to be good.")
def mask_tokens(answer: Function, seed: int = 0) -> None:
    """Check the shares of BERT's rule, and that labels stand only at chosen positions."""
    generator = Generator().manual_seed(seed)
    for vocab_size in (3000, 8000):
        input_ids = torch.randint(10, vocab_size, (128, 128), generator=generator)
        special = torch.rand(input_ids.shape, generator=generator) < 0.1
        input_ids[special] = torch.randint(5, (int(special.sum()),), generator=generator)
        given, mask_id = input_ids.clone(), 5
        pair = parts(
            answer(input_ids, special.clone(), mask_id, vocab_size),
            2,
            "two tensors are wanted: what the model reads, and the labels",
        )
        read, labels = map(integers, pair)
        expect(
            read.shape == labels.shape == given.shape, "both tensors have the shape of input_ids."
        )
        expect(
            torch.equal(input_ids, given),
            "you wrote over the tensor that you were given: clone it first.",
        )
        chosen = labels != -100
        _judge_labels(chosen, labels, given, special)
        _judge_read(read[chosen], given[chosen], mask_id)
        expect(
            torch.equal(read[~chosen], given[~chosen]),
            "tokens without a label are changed: hide and swap only where you have chosen.",
        )


def _judge_labels(chosen: Tensor, labels: Tensor, ids: Tensor, special: Tensor) -> None:
    expect(
        chosen.float().mean() < 0.8,
        "there are labels everywhere: all but the chosen 15 % get -100.",
    )
    expect(not chosen[special].any(), "special tokens are chosen: leave out where special is True.")
    expect(
        torch.equal(labels[chosen], ids[chosen]),
        "a label is the token that stood there before you changed it.",
    )
    share = chosen[~special].float().mean().item()
    expect(0.12 < share < 0.18, f"{share:.0%} of the ordinary tokens are chosen; expected 15 %.")


def _judge_read(read: Tensor, ids: Tensor, mask_id: int) -> None:
    """Compare the shares of hidden, kept and swapped among the chosen: 80, 10, 10 in a hundred."""
    hidden, kept = (read == mask_id).float().mean().item(), (read == ids).float().mean().item()
    swapped = read[(read != mask_id) & (read != ids)]
    expect(
        hidden < 0.97,
        "every chosen token becomes [MASK]: 10 % get a random token and 10 % stay as they are.",
    )
    expect(kept < 0.97, "the chosen tokens are still there: hide 80 % of them.")
    expect(
        abs(hidden - 0.8) < 0.06 and abs(kept - 0.1) < 0.05,
        f"of the chosen, {hidden:.0%} are hidden, {kept:.0%} kept and {1 - hidden - kept:.0%} "
        "swapped; expected 80, 10 and 10. Use one throw of the dice for all three.",
    )
    expect(
        len(swapped.unique()) > len(swapped) / 2,
        "the random token is the same in many places: draw one for each position.",
    )

"""Pretrain tiny-bert-zh on openly licensed Chinese text; run it again to go on.

python data/models/tiny-bert-zh/build.py CORPORA WORK

CORPORA holds the folder `chinese`; WORK gets log, checkpoints and snapshots. See README.md beside
this file for where the texts come from and what they may be used for.
"""

import argparse
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from torch.nn import functional
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from ftkit import TrainingConfig
from ftkit.devices import attention_for, best_device
from ftkit.training.pretraining import pack_blocks, pretrain, save_half

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TECHNICAL = ("react_docs_zh.txt", "trpl_zh.txt")  # far from what the course reads
BLOCK, RAREST, HELD_OUT = 64, 3, 100
CYCLES = (3, 4)  # passes; at the start of each the learning rate rises anew
ONE_DIRECTION = 0.5  # share of the batches
MASKED, REPLACED = 0.15, 0.15  # shares of all characters
REPLACED_WEIGHT = 10.0  # the loss of the easy task is small


def read_texts(folder: Path) -> tuple[list[str], list[str]]:
    """Return training and held-out texts: every hundredth paragraph is held out."""
    texts = []
    for path in sorted(folder.glob("*.txt")):
        if path.name not in ("PROVENANCE.txt", *TECHNICAL):
            texts += re.split(r"\n\s*\n", path.read_text(encoding="utf-8"))
    lines = [line for text in texts for line in text.split("\n") if line.strip()]
    held_out = lines[::HELD_OUT]
    return [line for i, line in enumerate(lines) if i % HELD_OUT], held_out


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Take every character that stands at least three times: Chinese BERT's own way."""
    inner = Tokenizer(models.WordPiece(vocab={"[UNK]": 0}, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(inner.normalizer.normalize_str(text))
    characters = sorted(c for c, n in counts.items() if n >= RAREST and not c.isspace())
    letters = [c for c in characters if c.isascii() and c.isalnum()]
    vocabulary = [*SPECIAL, *characters, *(f"##{c}" for c in letters)]
    inner.model = models.WordPiece({t: i for i, t in enumerate(vocabulary)}, unk_token="[UNK]")
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL, strict=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_max_length=256,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **{f"{name}_token": token for name, token in names},
    )


class Neighbours(nn.Module):
    """Draw a character that stands in the corpus beside a given one: a bigram model's sample."""

    def __init__(self, tokens: torch.Tensor, vocabulary: int, step: int) -> None:
        super().__init__()
        beside = torch.roll(tokens, -step)
        counts = torch.bincount(tokens, minlength=vocabulary)
        self.register_buffer("beside", beside[tokens.argsort(stable=True)], persistent=False)
        self.register_buffer("count", counts.clamp(min=1), persistent=False)
        self.register_buffer("start", counts.cumsum(0) - counts, persistent=False)
        self.step = step

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return for each position a draw given the neighbour `step` before it."""
        given = torch.roll(input_ids, self.step, dims=1)
        drawn = (torch.rand(given.shape, device=given.device) * self.count[given]).long()
        return self.beside[(self.start[given] + drawn).clamp(max=len(self.beside) - 1)]


class Pretraining(nn.Module):
    """One network, three tasks, one drawn for each batch.

    Half of the batches are read in one direction: each character is predicted from those before
    it, or from those after it. Every position teaches, so that a small model soon knows which
    characters go together (the mixture is that of GPT-BERT, Charpentier and Samuel 2024). The other
    half is read whole: masked characters are named, and replaced ones found. The latter is
    ELECTRA's task (Clark et al. 2020); in place of its generator network, bigram counts propose the
    replacements.
    """

    def __init__(self, bert: BertForMaskedLM, tokens: torch.Tensor, mask_token_id: int) -> None:
        super().__init__()
        self.bert, self.config, self.mask_token_id = bert, bert.config, mask_token_id
        self.found = nn.Linear(bert.config.hidden_size, 1)
        size = bert.config.vocab_size
        self.left, self.right = Neighbours(tokens, size, 1), Neighbours(tokens, size, -1)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor, **_: object) -> "Losses":
        """Draw a task, and return its loss."""
        draw = float(torch.rand(1))
        if draw < ONE_DIRECTION:
            return self.one_direction(input_ids, 1 if draw < ONE_DIRECTION / 2 else -1)
        return self.both_directions(input_ids)

    def one_direction(self, input_ids: torch.Tensor, step: int) -> "Losses":
        """Predict each character from those before it (1) or after it (-1)."""
        size = input_ids.shape[1]
        seen = torch.ones(size, size, dtype=torch.bool, device=input_ids.device)
        seen = seen.tril() if step > 0 else seen.triu()
        mask = torch.zeros(1, 1, size, size, device=input_ids.device).masked_fill(~seen, -1e4)
        mask = mask.expand(len(input_ids), 1, size, size)
        hidden = self.bert.bert(input_ids=input_ids, attention_mask=mask).last_hidden_state
        hidden = hidden[:, :-1] if step > 0 else hidden[:, 1:]
        labels = input_ids[:, 1:] if step > 0 else input_ids[:, :-1]
        logits = self.bert.cls(hidden).float()
        return Losses(functional.cross_entropy(logits.flatten(0, 1), labels.flatten()))

    def both_directions(self, input_ids: torch.Tensor) -> "Losses":
        """Corrupt the block at random: name what is masked, find what is replaced."""
        draw = torch.rand(input_ids.shape, device=input_ids.device)
        masked, replaced = draw < MASKED, (draw >= MASKED) & (draw < MASKED + REPLACED)
        half = torch.rand(input_ids.shape, device=input_ids.device) < 0.5
        proposed = torch.where(half, self.left(input_ids), self.right(input_ids))
        corrupted = torch.where(replaced, proposed, input_ids)
        corrupted = corrupted.masked_fill(masked, self.mask_token_id)
        hidden = self.bert.bert(input_ids=corrupted).last_hidden_state
        logits = self.bert.cls(hidden[masked])
        named = functional.cross_entropy(logits.float(), input_ids[masked])
        score = self.found(hidden)[~masked].squeeze(-1).float()
        truth = (corrupted != input_ids)[~masked].float()
        found = functional.binary_cross_entropy_with_logits(score, truth)
        return Losses(named + REPLACED_WEIGHT * found, named.detach(), found.detach())


class Losses(NamedTuple):
    """The losses in nats: what is trained on, and its two parts where the text is read whole."""

    loss: torch.Tensor
    named: torch.Tensor | None = None
    found: torch.Tensor | None = None


def main() -> None:
    """Train, and write model, tokenizer and log to WORK/model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpora", type=Path)
    parser.add_argument("work", type=Path)
    args = parser.parse_args()
    texts, held_out = read_texts(args.corpora / "chinese")
    tokenizer = make_tokenizer(texts)
    tokenizer.eos_token = "[SEP]"
    blocks = pack_blocks(texts, tokenizer, BLOCK)
    unseen = pack_blocks(held_out, tokenizer, BLOCK)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        num_hidden_layers=4,
        num_attention_heads=3,
        intermediate_size=768,
        max_position_embeddings=256,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    config._attn_implementation = attention_for(best_device())
    bert = BertForMaskedLM(config)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.1  # saved, to fine-tune
    tokens = torch.tensor(blocks["input_ids"]).flatten()
    model = Pretraining(bert, tokens, tokenizer.mask_token_id)
    training = TrainingConfig(
        learning_rate=1e-3,
        batch_size=24,
        warmup_steps=200,
        weight_decay=0.01,
        reuse_frozen=False,
        save_steps=800,
    )
    size = sum(p.numel() for p in bert.parameters())
    print(f"{len(blocks)} blocks of {BLOCK}, {len(tokenizer)} tokens, {size:,} parameters")

    def save(folder: Path) -> None:
        BertForMaskedLM.from_pretrained(
            None, config=config, state_dict=bert.state_dict(), dtype=torch.float16
        ).save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    @torch.inference_mode()
    def measure() -> dict[str, float]:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            ids = torch.tensor(unseen["input_ids"])
            _, named, found = model.eval().both_directions(ids)
            forward = model.one_direction(ids, 1).loss
        done = len(list(args.work.glob("snapshot-*")))
        save(args.work / f"snapshot-{done + 1}")
        values = {"named": named, "found": found, "next": forward}
        print({name: round(float(value), 4) for name, value in values.items()}, flush=True)
        return {name: float(value) for name, value in values.items()}

    log: list[dict] = []
    for cycle, passes in enumerate(CYCLES):
        turn = replace(training, num_train_epochs=passes, seed=cycle)
        lines = pretrain(model, blocks, turn, args.work / f"cycle-{cycle}", measure)
        before = log[-1]["step"] if log else 0
        log += [{**line, "step": before + line["step"], "cycle": cycle} for line in lines]
    save_half(args.work / "model", bert, tokenizer, log)


if __name__ == "__main__":
    main()

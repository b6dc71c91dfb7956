"""Pretrain tiny-stories-gpt on TinyStories and children's books; run it again to go on.

python data/models/tiny-stories-gpt/build.py CORPORA WORK

CORPORA holds the folders `tinystories` and `english_stories`; WORK gets log and checkpoints. See
README.md beside this file for where the texts come from and what they may be used for.
"""

import argparse
import math
import re
from collections import Counter, defaultdict
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from ftkit import TrainingConfig
from ftkit.devices import attention_for, best_device
from ftkit.training.pretraining import pack_blocks, pretrain, save_half

END, PAD = "<|endoftext|>", "<|pad|>"
HELD_OUT = 80  # the last stories of tinystories_10k.txt
QUOTES = str.maketrans("“”‘’–—…\u00a0", "\"\"''--. ")
BOOKS = ("african_storybook_en.txt", "fairytaleqa_other_stories.txt", "pratham_books_en.txt")
BLOCK, VOCABULARY = 256, 4096
ORDER, STOP = 5, "\0"  # of the baseline: characters in an n-gram; the end of a story


def clean(text: str) -> str:
    """Mend text that was decoded with the wrong code page, and make quotes plain."""
    try:
        text = text.encode("cp1252").decode("utf-8") if "â€" in text else text
    except UnicodeError:
        text = re.sub("â€.?", '"', text)
    text = re.sub(r"[ \t]+", " ", text.translate(QUOTES).replace("…", "..."))
    return re.sub(r"\s*\n\s*", "\n", text).strip()


def read_tinystories(folder: Path) -> tuple[list[str], list[str]]:
    """Return training and held-out stories."""
    marked = (folder / "tinystories_10k.txt").read_text(encoding="utf-8").split(END)
    stories = [clean(story) for story in marked if story.strip()]
    lines = (folder / "smallGPT_tiny_stories.txt").read_text(encoding="utf-8")
    others = re.split(r"(?<!\n)\n(?!\n)", lines)  # one newline ends a story, two a paragraph
    valid = (folder / "moe-routing-bench_tinystories_val.txt").read_text(encoding="utf-8")
    others += re.split(r"\n\n(?=Once upon a time|Once there was|One day, a)", valid)
    held_out = stories[-HELD_OUT:]
    train = [*stories[:-HELD_OUT], *(clean(story) for story in others if story.strip())]
    return sorted(set(train) - set(held_out)), held_out


def read_books(folder: Path) -> list[str]:
    """Return the stories of the books in simple, modern English."""
    texts = []
    for name in BOOKS:
        parts = re.split(r"\n\s*\n", (folder / name).read_text(encoding="utf-8"))
        texts += [clean(part) for part in parts if len(part) > 200]
    return texts


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Learn byte-level pieces (Sennrich et al. 2016; Radford et al. 2019)."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token=END,
        bos_token=END,
        pad_token=PAD,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


@torch.inference_mode()
def bits_per_character(model: GPT2LMHeadModel, tokenizer, stories: list[str]) -> float:
    """Measure each story on its own, from the end-of-text token to the end-of-text token."""
    model.eval()
    nats = 0.0
    for story in stories:
        ids = torch.tensor([tokenizer(END + story + END)["input_ids"][:512]])
        loss = model(input_ids=ids, labels=ids).loss
        nats += float(loss) * (ids.shape[1] - 1)
    return nats / math.log(2) / sum(len(story) + 1 for story in stories)


def count_characters(stories: list[str]) -> dict[str, Counter]:
    """Count what follows each context of 0 to 4 characters."""
    counts: dict[str, Counter] = defaultdict(Counter)
    for story in stories:
        text = STOP * (ORDER - 1) + story + STOP
        for end in range(ORDER - 1, len(text)):
            for length in range(ORDER):
                counts[text[end - length : end]][text[end]] += 1
    return counts


def bits_by_counting(counts: dict[str, Counter], stories: list[str]) -> float:
    """Measure the baseline: a character 5-gram, each context mixed with the next shorter one.

    The weights are those of Witten and Bell (1991).
    """
    bits = 0.0
    for story in stories:
        text = STOP * (ORDER - 1) + story + STOP
        for end in range(ORDER - 1, len(text)):
            chance = 1 / (len(counts[""]) + 1)
            for length in range(ORDER):
                seen = counts.get(text[end - length : end])
                if seen:
                    chance = (seen[text[end]] + len(seen) * chance) / (seen.total() + len(seen))
            bits -= math.log2(chance)
    return bits / sum(len(story) + 1 for story in stories)


def main() -> None:
    """Train, and write model, tokenizer and log to WORK/model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpora", type=Path)
    parser.add_argument("work", type=Path)
    args = parser.parse_args()
    stories, held_out = read_tinystories(args.corpora / "tinystories")
    books = read_books(args.corpora / "english_stories")
    bits = bits_by_counting(count_characters(stories), held_out)
    print(f"{bits:.3f} bits per character by counting (5-gram of the training stories)")
    tokenizer = train_tokenizer(stories * 2 + books)
    blocks = pack_blocks(stories * 2 + books, tokenizer, BLOCK)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=512,
        n_embd=256,
        n_layer=5,
        n_head=4,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        activation_function="gelu_pytorch_tanh",  # GPT-2's own, in one operation
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    config._attn_implementation = attention_for(best_device())
    model = GPT2LMHeadModel(config)
    training = TrainingConfig(
        learning_rate=2e-3,
        num_train_epochs=5,
        batch_size=16,
        warmup_steps=100,
        lr_scheduler_type="cosine",
        weight_decay=0.1,
        save_steps=200,
        seed=0,
    )
    print(
        f"{len(stories)} stories, {len(books)} pieces of books, {len(blocks)} blocks of {BLOCK}, "
        f"{sum(p.numel() for p in model.parameters()):,} parameters"
    )

    def measure() -> dict[str, float]:
        bits = bits_per_character(model, tokenizer, held_out)
        print(f"{bits:.3f} bits per character", flush=True)
        return {"bits_per_character": bits}

    log = pretrain(model, blocks, training, args.work, measure)
    model.config.loss_type = "ForCausalLM"
    model.generation_config.update(do_sample=True, temperature=0.8, top_p=0.95)
    save_half(args.work / "model", model, tokenizer, log)


if __name__ == "__main__":
    main()

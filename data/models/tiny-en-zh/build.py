"""Pretrain tiny-en-zh, a translator from English into Chinese; run it again to go on.

python data/models/tiny-en-zh/build.py CORPORA WORK

CORPORA holds the folder `tatoeba_en_zh`; WORK gets log and checkpoints. See README.md beside this
file for where the sentences come from and what they may be used for.
"""

import argparse
import hashlib
import re
import string
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

import torch
from datasets import Dataset
from sacrebleu import corpus_chrf
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import MarianConfig, MarianMTModel, PreTrainedTokenizerFast

from ftkit import TrainingConfig
from ftkit.data.batches import collate, length_order
from ftkit.devices import attention_for, best_device
from ftkit.training.pretraining import pretrain, save_half

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
HELD_OUT, SHOWN = 500, 200  # English sentences held out; those measured while it trains
PIECES, LONGEST = 4000, 60
WORD = r"[a-z]+(?:'[a-z]+)*"
CHINESE = "\u3001-\u303f\u4e00-\u9fff\uff01-\uff5e\u201c\u201d\u2014\u2026"
FULL_WIDTH = str.maketrans("?!,;:()「」", "？！，；：（）“”")
DICE = 0.1  # below it the dictionary leaves a word out
Pair = tuple[str, str]


def clean_chinese(text: str) -> str:
    """Write letters and digits narrow, punctuation wide, and leave out spaces."""
    text = re.sub(r"\s+", "", unicodedata.normalize("NFKC", text).translate(FULL_WIDTH))
    return re.sub(r"\.$", "。", re.sub(r"(?<=\d)，(?=\d)", ",", text))


def read_pairs(path: Path) -> list[Pair]:
    """Return the pairs in simplified script: those that GB 2312 can write."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t")[:2] for line in lines]
    found = {(english.strip(), clean_chinese(chinese)) for english, chinese in pairs}
    return sorted((e, c) for e, c in found if c.encode("gb2312", "ignore").decode("gb2312") == c)


def divide(pairs: list[Pair]) -> tuple[list[Pair], dict[str, list[str]]]:
    """Hold out English sentences by their hash; what shares a sentence with them is dropped."""
    references: dict[str, list[str]] = defaultdict(list)
    for english, chinese in pairs:
        references[english.lower()].append(chinese)
    order = sorted(references, key=lambda text: hashlib.sha256(text.encode()).hexdigest())
    held_out = {english: references[english] for english in order[:HELD_OUT]}
    taken = {chinese for chosen in held_out.values() for chinese in chosen}
    train = [(e, c) for e, c in pairs if e.lower() not in held_out and c not in taken]
    return train, held_out


def characters(pairs: list[Pair]) -> list[str]:
    """Return the first level of GB 2312, its 3,755 commonest characters, and all that occur."""
    rows = (bytes([16 + 160 + row, 161 + cell]) for row in range(40) for cell in range(94))
    common = {code.decode("gb2312", "ignore") for code in rows}
    return sorted((common | set("".join(chinese for _, chinese in pairs))) - {""})


def train_tokenizer(pairs: list[Pair]) -> PreTrainedTokenizerFast:
    """Learn English word pieces (Schuster & Nakajima 2012); a Chinese character is a token."""
    inner = Tokenizer(models.WordPiece(unk_token=UNKNOWN))  # type: ignore[arg-type]
    quotes = normalizers.Replace("’", "'")
    inner.normalizer = normalizers.Sequence(
        [quotes, normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(WORD + r"|\S"), "removed", invert=True)
    trainer = trainers.WordPieceTrainer(
        vocab_size=PIECES,
        special_tokens=[PAD, END, UNKNOWN],
        initial_alphabet=[c for c in string.printable if not c.isspace() and not c.isupper()],
        show_progress=False,
    )
    inner.train_from_iterator((english for english, _ in pairs), trainer)
    pieces = sorted(inner.get_vocab(), key=inner.get_vocab().__getitem__)
    pieces += sorted({c.lower() for c in characters(pairs)} - set(pieces))
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    inner.model = models.WordPiece(vocabulary, unk_token=UNKNOWN)
    inner.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="##", cleanup=False),
            decoders.Fuse(),
            decoders.Replace(Regex(f" (?=[{CHINESE}.,?!])|(?<=[{CHINESE}]) "), ""),
            decoders.Replace(Regex("(?<=[0-9.,]) (?=[0-9])"), ""),
        ]
    )
    ends = [(END, vocabulary[END])]
    inner.post_processor = TemplateProcessing(single=f"$A {END}", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        model_max_length=256,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def encode(pairs: list[Pair], tokenizer: PreTrainedTokenizerFast) -> Dataset:
    """Return one row a pair; the few that are long are left out."""
    english, chinese = map(list, zip(*pairs, strict=True))
    rows = dict(tokenizer(english, text_target=chinese))
    short = [
        max(map(len, r)) <= LONGEST for r in zip(rows["input_ids"], rows["labels"], strict=True)
    ]
    return Dataset.from_dict(rows).select([i for i, keep in enumerate(short) if keep])


def chrf(guesses: list[str], references: list[list[str]]) -> float:
    """Score against all references of each sentence (Popović 2015)."""
    most = max(map(len, references))
    streams = [[r[i] if i < len(r) else None for r in references] for i in range(most)]
    return corpus_chrf(guesses, streams).score  # type: ignore[arg-type]


def dictionary(pairs: list[Pair]) -> dict[str, str]:
    """Return for each English word the characters that go with it most often (Dice 1945)."""
    together: dict[str, Counter[str]] = defaultdict(Counter)
    runs: Counter[str] = Counter()
    for english, chinese in pairs:
        parts = re.findall("[\u4e00-\u9fff]+", chinese)
        grams = {p[i : i + n] for p in parts for n in range(1, 5) for i in range(len(p) - n + 1)}
        runs.update(grams)
        for word in set(re.findall(WORD, english.lower())):
            together[word].update(grams)
            together[word][""] += 1  # how often the word stands anywhere

    def dice(word: str, run: str) -> float:
        return 2 * together[word][run] / (together[word][""] + runs[run])

    best = {
        w: max((r for r in c if r), key=lambda r: (dice(w, r), r), default="")
        for w, c in together.items()
    }
    return {word: run for word, run in best.items() if run and dice(word, run) >= DICE}


def word_for_word(text: str, words: dict[str, str]) -> str:
    """Translate each word on its own, in the order of the English."""
    end = {"?": "？", "!": "！"}.get(text[-1], "。")
    return "".join(words.get(word, "") for word in re.findall(WORD, text.lower())) + end


@torch.inference_mode()
def measure_model(model: MarianMTModel, tokenizer, held_out: dict[str, list[str]]) -> dict:
    """Return nats a token with the reference as prefix, and chrF of greedy translations."""
    model.eval()
    pairs = [(english, chinese) for english, found in held_out.items() for chinese in found]
    rows, nats, tokens = encode(pairs, tokenizer), 0.0, 0
    for chosen in length_order([len(ids) for ids in rows["input_ids"]], 64):
        batch = collate(rows, chosen, tokenizer.pad_token_id)
        count = int((batch["labels"] != -100).sum())
        nats, tokens = nats + float(model(**batch).loss) * count, tokens + count
    sentences, guesses = sorted(held_out, key=len), []
    for start in range(0, len(sentences), 50):
        batch = tokenizer(sentences[start : start + 50], padding=True, return_tensors="pt")
        ids = model.generate(**batch, max_new_tokens=40)
        guesses += tokenizer.batch_decode(ids, skip_special_tokens=True)
    score = chrf(guesses, [held_out[sentence] for sentence in sentences])
    return {"held_out_loss": round(nats / tokens, 4), "chrf": round(score, 2)}


def make_model(tokenizer: PreTrainedTokenizerFast) -> MarianMTModel:
    """Return a small transformer (Vaswani et al. 2017) with random weights."""
    config = MarianConfig(
        vocab_size=len(tokenizer),
        d_model=256,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=1024,
        decoder_ffn_dim=1024,
        max_position_embeddings=256,
        activation_function="gelu_pytorch_tanh",
        dropout=0.1,
        scale_embedding=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
        forced_eos_token_id=None,
    )
    config._attn_implementation = attention_for(best_device())
    torch.manual_seed(0)
    model = MarianMTModel(config)
    model.generation_config.bad_words_ids = [[tokenizer.pad_token_id], [tokenizer.unk_token_id]]
    return model


def main() -> None:
    """Train, and write model, tokenizer and log to WORK/model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpora", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()
    train, held_out = divide(read_pairs(args.corpora / "tatoeba_en_zh" / "cmn.txt"))
    tokenizer = train_tokenizer(train)
    rows, model, words = encode(train, tokenizer), make_model(tokenizer), dictionary(train)
    guesses = [word_for_word(english, words) for english in held_out]
    baseline = round(chrf(guesses, list(held_out.values())), 2)
    training = TrainingConfig(
        learning_rate=1e-3,
        num_train_epochs=args.epochs,
        batch_size=64,
        warmup_steps=400,
        lr_scheduler_type="cosine",
        weight_decay=0.01,
        save_steps=400,
        seed=0,
    )
    print(
        f"{len(rows)} pairs, {len(held_out)} English sentences held out, {len(tokenizer)} tokens, "
        f"{sum(p.numel() for p in model.parameters()):,} parameters; word for word: chrF {baseline}"
    )
    some = dict(list(held_out.items())[:SHOWN])

    def measure() -> dict[str, float]:
        scores = measure_model(model, tokenizer, some)
        print(scores, flush=True)
        return scores

    log = pretrain(model, rows, training, args.work, measure)
    whole = {**measure_model(model, tokenizer, held_out), "word_for_word_chrf": baseline}
    print(whole)
    save_half(args.work / "model", model, tokenizer, [*log, {"step": log[-1]["step"], **whole}])


if __name__ == "__main__":
    main()

"""``ftkit chat``: talk with a language model in the terminal."""

import argparse
import sys
from typing import Any

import ftkit

HELP = "/system TEXT sets the system turn, /reset forgets the conversation, /quit ends."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which model, and how it answers."""
    parser.add_argument("model", metavar="DIR", help="a saved folder, or a name such as smollm2")
    parser.add_argument("--system", metavar="TEXT", help="what the system turn says")
    parser.add_argument("--max-new-tokens", type=int, default=256, help="default: 256")
    parser.add_argument("--temperature", type=float, default=0.0, help="0, the default: greedy")
    parser.add_argument("--top-p", type=float, default=1.0, help="default: 1, all tokens")
    parser.add_argument("--seed", type=int, default=42, help="of sampling; default: 42")


def run(args: argparse.Namespace) -> int:
    """Read turns from standard input until /quit or its end; print each answer as it comes."""
    import torch

    tokenizer, model = _load(args.model)
    torch.manual_seed(args.seed)
    options: dict[str, Any] = {"max_new_tokens": args.max_new_tokens, "do_sample": False}
    if args.temperature > 0:
        options |= {"do_sample": True, "temperature": args.temperature, "top_p": args.top_p}
    system = [{"role": "system", "content": args.system}] if args.system else []
    turns: list[dict[str, str]] = []
    print(HELP, file=sys.stderr)
    while True:
        try:
            said = input("> ").strip()
        except EOFError:
            return 0
        command, _, rest = said.partition(" ")
        if command == "/quit":
            return 0
        if command == "/reset":
            turns = []
        elif command == "/system":
            system, turns = [{"role": "system", "content": rest}] if rest.strip() else [], []
        elif said.startswith("/"):
            print(HELP, file=sys.stderr)
        elif said:
            turns.append({"role": "user", "content": said})
            answer = _answer(model, tokenizer, [*system, *turns], options)
            turns.append({"role": "assistant", "content": answer})


def _load(name: str) -> tuple[Any, Any]:
    """Load a saved chat model, or any checkpoint that has, or gets, a chat template."""
    from pathlib import Path

    from ftkit.paths import TASK_FILE

    if not (Path(name) / TASK_FILE).is_file():
        return ftkit.load_pretrained(name, ftkit.Chat())
    task, tokenizer, model = ftkit.load_saved(name)
    if not isinstance(task, ftkit.CausalLM):
        raise ftkit.FtkitError(f"{name}: was trained for {task.name}; expected chat.")
    ftkit.Chat().adapt(model, tokenizer)
    return tokenizer, model


def _answer(model: Any, tokenizer: Any, messages: list[dict[str, str]], options: dict) -> str:
    """Print an answer token by token, and return it; Ctrl-C ends the answer and nothing else."""
    import torch
    from transformers import TextStreamer

    from ftkit.tasks.chats.templates import encode_prompt

    ids = torch.tensor([encode_prompt(tokenizer, messages)], device=model.device)
    pieces: list[str] = []

    class Streamer(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            pieces.append(text)
            super().on_finalized_text(text, stream_end)

    streamer = Streamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    pad = model.config.pad_token_id or 0
    try:
        model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pad_token_id=pad,
            streamer=streamer,
            **options,
        )
    except KeyboardInterrupt:
        print(" …", flush=True)
    return "".join(pieces).strip() or "…"

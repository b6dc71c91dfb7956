"""llama.cpp itself reads the file: same tokens, same greedy answers; opt-in, for it compiles.

``FTKIT_LLAMA_PYTHON`` names a Python that has llama-cpp-python, by default this one.
"""

import json
import os
import subprocess
import sys

import pytest
import torch

import ftkit
from ftkit.export.vocabulary import HARD_TEXT
from tests.conftest import need_fetched

pytestmark = [
    pytest.mark.native,
    pytest.mark.skipif(not os.environ.get("FTKIT_NATIVE"), reason="set FTKIT_NATIVE=1"),
]
PROMPTS = (
    "What is the capital of France?",
    "Name three colours.",
    "What do bees make?",
    "How many days has a week?",
)
READ = """if True:
    import json, sys
    from llama_cpp import Llama
    path, texts, prompts = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
    model = Llama(path, n_ctx=512, n_threads=1, logits_all=False, verbose=False)
    tokens = [model.tokenize(text.encode(), add_bos=False, special=True) for text in texts]
    answers = []
    for prompt in prompts:
        model.reset()
        answer = []
        for token in model.generate(prompt, temp=0.0, repeat_penalty=1.0):
            if token == model.token_eos() or len(answer) == 20:
                break
            answer.append(token)
        answers.append(answer)
    print(json.dumps([tokens, answers]))
"""


def test_llama_cpp_reads_the_same_model(tmp_path):
    need_fetched("smollm2")
    tokenizer, model = ftkit.load_pretrained("smollm2", ftkit.CausalLM(("text",)))
    ftkit.export("smollm2", tmp_path / "m.gguf", to="gguf", type="f16")
    template = {"add_generation_prompt": True, "return_dict": False}
    prompts = [
        tokenizer.apply_chat_template([{"role": "user", "content": prompt}], **template)
        for prompt in PROMPTS
    ]
    expected = []
    for ids in prompts:
        found = model.generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False)[0]
        answer = found[len(ids) :].tolist()
        expected.append(answer[: answer.index(2)] if 2 in answer else answer)
    texts = [HARD_TEXT, "<|im_start|>user\n1234  5 hello 手机<|im_end|>", *PROMPTS]
    python = os.environ.get("FTKIT_LLAMA_PYTHON", sys.executable)
    arguments = [str(tmp_path / "m.gguf"), json.dumps(texts), json.dumps(prompts)]
    done = subprocess.run(
        [python, "-c", READ, *arguments], capture_output=True, text=True, check=True
    )
    tokens, answers = json.loads(done.stdout.splitlines()[-1])
    assert tokens == [tokenizer(text)["input_ids"] for text in texts]
    assert answers == expected

"""The Modelfile: ChatML in Go's template language, what a template adds unasked, and what stops."""

import re

from ftkit.export.modelfile import CHATML_IN_GO, chatml, find_template, write_modelfile
from tests.export.conftest import CHATML, make_tokenizer

DEFAULT_SYSTEM = (  # as smollm2's: a system turn that nobody wrote
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are small.<|im_end|>\n' }}{% endif %}" + CHATML
)
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "{{ odd }} \\ text"},
    {"role": "assistant", "content": "Yes.\nNo."},
    {"role": "user", "content": "Why?"},
]


def go(template: str, messages: list[dict[str, str]]) -> str:
    """Do what Go's text/template does with this one kind of template."""
    start, body, rest = re.fullmatch(
        r"(.*?)\{\{- range \.Messages \}\}(.*)\{\{ end \}\}(.*)", template, re.DOTALL
    ).groups()
    fill = {"{{ .Role }}": "role", "{{ .Content }}": "content"}
    pieces = re.split(r"(\{\{.*?\}\})", body)
    turns = ["".join(m[fill[p]] if p in fill else p for p in pieces) for m in messages]
    return start.rstrip() + "".join(turns) + rest


def with_template(template: str | None):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def test_chatml_in_go_is_chatml_in_jinja():
    template, system = find_template(with_template(CHATML))
    assert (template, system) == (CHATML_IN_GO, "")
    options = {"tokenize": False, "add_generation_prompt": True}
    assert go(template, TALK) == with_template(CHATML).apply_chat_template(TALK, **options)
    assert go(template, TALK) == chatml(TALK)


def test_a_system_turn_that_nobody_wrote_is_written_down(tmp_path):
    tokenizer = with_template(DEFAULT_SYSTEM)
    assert find_template(tokenizer) == (CHATML_IN_GO, "You are small.")
    assert write_modelfile(tmp_path / "m.gguf", tokenizer, [0, 2]) == []
    text = (tmp_path / "Modelfile").read_text()
    assert f'FROM ./m.gguf\nTEMPLATE """{CHATML_IN_GO}"""\nSYSTEM """You are small."""\n' in text
    assert 'PARAMETER stop "<|endoftext|>"\nPARAMETER stop "<|im_end|>"\n' in text


def test_a_model_that_continues_texts_gets_the_bare_prompt():
    assert find_template(with_template(None)) == ("{{ .Prompt }}", "")


def test_other_templates_are_left_to_the_reader(tmp_path):
    llama = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
    refuses = "{{ raise_exception('no system text') }}"
    nearly = (
        CHATML + "{{ 'Think first.' }}",
        "{{ bos_token }}" + CHATML,
        CHATML.replace("message['content'] ", "message['content'] | upper "),
    )
    for template in (llama, refuses, *nearly):
        assert find_template(with_template(template)) == (None, ""), template
    (note,) = write_modelfile(tmp_path / "m.gguf", with_template(llama), [0])
    assert note.startswith("The chat template is not ChatML, so the Modelfile has no TEMPLATE")
    assert not re.search("^TEMPLATE", (tmp_path / "Modelfile").read_text(), re.MULTILINE)

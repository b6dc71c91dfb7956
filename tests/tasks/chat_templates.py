"""Chat templates of eight kinds, written out in our own words after the field's models."""

TEMPLATES = {  # kind: the template, the token that ends a turn
    "ChatML": (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}"
        "{{ '<|im_end|>' + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        "<|im_end|>",
    ),
    "Llama 2": (  # the system turn stands within the user's first; no prompt to answer
        "{% if messages[0]['role'] == 'system' %}"
        "{% set first = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
        "{% set turns = messages[1:] %}{% else %}{% set first = '' %}{% set turns = messages %}"
        "{% endif %}{% for m in turns %}{% if m['role'] == 'user' %}"
        "{{ '<s>[INST] ' + (first if loop.first else '') + m['content'] | trim + ' [/INST]' }}"
        "{% else %}{{ ' ' + m['content'] | trim + ' </s>' }}{% endif %}{% endfor %}",
        "</s>",
    ),
    "Llama 3": (
        "{{ '<s>' }}{% for m in messages %}"
        "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
        "{{ m['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        "<|eot_id|>",
    ),
    "Mistral": (  # refuses a system turn
        "{{ '<s>' }}{% for m in messages %}{% if m['role'] == 'user' %}"
        "{{ '[INST] ' + m['content'] + ' [/INST]' }}{% elif m['role'] == 'assistant' %}"
        "{{ ' ' + m['content'] + '</s>' }}{% else %}"
        "{{ raise_exception('only user and assistant, please') }}{% endif %}{% endfor %}",
        "</s>",
    ),
    "Gemma": (  # the assistant is called model
        "{{ '<s>' }}{% for m in messages %}{% if m['role'] == 'system' %}"
        "{{ raise_exception('no system turn') }}{% endif %}"
        "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' }}"
        "{{ m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
        "<end_of_turn>",
    ),
    "Phi": (  # an end of text after the last turn, where nothing follows
        "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}"
        "{{ '</s>' }}{% endif %}",
        "<|end|>",
    ),
    "Qwen": (  # a system turn that nobody wrote; empty thoughts before an answer
        "{% if messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}"
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}"
        "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' }}{% endif %}",
        "<|im_end|>",
    ),
    "Zephyr": (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '</s>\n' }}"
        "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
        "{% endfor %}",
        "</s>",
    ),
    "generation": (  # says itself which tokens are the assistant's
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
        "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}{% endgeneration %}"
        "{% else %}{{ m['content'] }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        "<|im_end|>",
    ),
}
SPECIAL = (
    *("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|eot_id|>"),
    *("<|end_header_id|>", "<start_of_turn>", "<end_of_turn>", "<|end|>", "<|user|>"),
    *("<|assistant|>", "<|system|>", "[INST]", "[/INST]"),
)

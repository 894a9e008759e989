#!/usr/bin/env python3
# Writes models/llama_longrope, models/mamba2_limits and tokenizers/sentencepiece_added: what transformers and tokenizers compute where the other cases do not look.
# usage: reference.py FOLDER     (FOLDER is this one; needs torch, transformers, tokenizers and safetensors)
import json, os, random, sys
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer

FOLDER = sys.argv[1]
IDS = dict(vocab_size=72, bos_token_id=1, eos_token_id=2)


def model(name, cls, config, length, prompt, count):
    torch.manual_seed(len(name))
    config._attn_implementation = "eager"
    net = cls(config).eval().float()
    with torch.no_grad():
        for key, value in net.named_parameters():
            if "norm" in key or key.endswith(("bias", "A_log", ".D")):
                value.add_(torch.randn_like(value) * 0.2)                           # as they are made, all elements are alike
    folder = f"{FOLDER}/models/{name}"
    net.save_pretrained(folder)
    if os.path.exists(f"{folder}/generation_config.json"):
        os.remove(f"{folder}/generation_config.json")
    ids = torch.randint(3, IDS["vocab_size"], (2, length))
    out = net(input_ids=ids, labels=ids, use_cache=False)
    out.loss.backward()
    tensors = {"input_ids": ids, "logits": out.logits.detach(), "loss": out.loss.detach().reshape(1)}
    tensors.update({"grad." + key: value.grad for key, value in net.named_parameters() if value.grad is not None})
    sequence, step_logits, past = torch.randint(3, IDS["vocab_size"], (1, prompt)), [], None
    tensors["prompt_ids"] = sequence[0]
    with torch.no_grad():
        for _ in range(count):
            step = net(input_ids=sequence if past is None else sequence[:, -1:], past_key_values=past, use_cache=True) if cls is transformers.LlamaForCausalLM \
                else net(input_ids=sequence, use_cache=False)                       # a state's cache has another name; without one is the stricter test
            past = getattr(step, "past_key_values", None)
            step_logits.append(step.logits[0, -1].clone())
            sequence = torch.cat([sequence, step.logits[:, -1].argmax(-1, keepdim=True)], 1)
    tensors.update(generated_ids=sequence[0], step_logits=torch.stack(step_logits))
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, f"{folder}/expected.safetensors")


# A factor beside both lengths, whose ratio is another; forward beyond the trained length, decoding across it.
model("llama_longrope", transformers.LlamaForCausalLM, transformers.LlamaConfig(
    **IDS, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1, max_position_embeddings=128, initializer_range=0.25,
    rope_parameters={"rope_type": "longrope", "rope_theta": 5000.0, "factor": 4.0, "original_max_position_embeddings": 16,
                     "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.0, 1.5, 2.0, 3.0]}), length=28, prompt=6, count=20)
# Step sizes that meet both limits, three groups, several chunks.
model("mamba2_limits", transformers.Mamba2ForCausalLM, transformers.Mamba2Config(
    **IDS, pad_token_id=0, hidden_size=24, num_heads=6, head_dim=8, state_size=12, n_groups=3, chunk_size=8, num_hidden_layers=2, initializer_range=0.25,
    time_step_limit=(0.01, 0.3)), length=37, prompt=9, count=14)


def tokenizer(name, source, added, count):
    settings = json.load(open(f"{FOLDER}/tokenizers/{source}/tokenizer.json"))
    for content, flags in added:
        token = dict(id=0, content=content, single_word=False, lstrip=False, rstrip=False, normalized=False, special=False)
        token.update(flags, id=1 + max([*settings["model"]["vocab"].values(), *(other["id"] for other in settings["added_tokens"])]))
        settings["added_tokens"].append(token)
    reference, chance = Tokenizer.from_str(json.dumps(settings)), random.Random(len(name))
    parts = ["hello", " world", "  ", "\n", " the", "1234", "é", "字", "😀", "<s>", "</s>", "s", ".", *(content for content, _ in added), *(f" {content} " for content, _ in added)]
    cases = []
    for _ in range(count):
        text = "".join(chance.choice(parts) for _ in range(chance.randrange(1, 12)))
        with_special, plain = reference.encode(text), reference.encode(text, add_special_tokens=False)
        cases.append(dict(text=text, ids=with_special.ids, ids_no_special=plain.ids,
                          decoded=reference.decode(with_special.ids, skip_special_tokens=False), decoded_skip_special=reference.decode(with_special.ids)))
    os.makedirs(f"{FOLDER}/tokenizers/{name}", exist_ok=True)
    json.dump(settings, open(f"{FOLDER}/tokenizers/{name}/tokenizer.json", "w"), ensure_ascii=False)
    json.dump(cases, open(f"{FOLDER}/tokenizers/{name}/cases.json", "w"))


# Without the texts of tokens: the reference gives the piece of the text there, with the blanks that a token takes along.
tokenizer("sentencepiece_added", "sentencepiece_llama2", [("<tok>", dict(normalized=True)), ("[INST]", dict(special=True, lstrip=True)), ("[END]", dict(rstrip=True)),
                                                          ("word", dict(normalized=True, single_word=True))], 80)

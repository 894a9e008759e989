#!/usr/bin/env python3
# Writes models/samba: a tiny random Samba checkpoint and what a plain PyTorch implementation in float64 computes with it, from the published description
# (Ren et al. 2024, arXiv:2406.07522; tensor names and tables of microsoft/Samba): dense masks, a loop over time for the scan. Nothing here is ZEngine's.
# usage: samba.py FOLDER     (needs torch and safetensors)
import json, math, os, sys
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

CONFIG = {
    "model_type": "samba", "vocab_size": 90, "padding_multiple": 32, "n_embd": 32, "intermediate_size": 56, "n_layer": 4, "n_head": 4, "n_query_groups": 2,
    "local_window": 7, "mb_per_layer": 2, "mamba_d_state": 8, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_dt_rank": "auto", "rotary_percentage": 1.0,
    "parallel_residual": False, "bias": False, "_norm_class": "FusedRMSNorm", "norm_eps": 1e-5, "_mlp_class": "LLaMAMLP", "mamba_init": True,
}
V, D, FF, LAYERS, H, G, WINDOW, N, K = 96, 32, 56, 4, 4, 2, 7, 8, 4
INNER, R, P = 2 * D, math.ceil(D / 16), D // H


def shapes():
    yield "transformer.wte.weight", (V, D)
    for i in range(LAYERS):
        h = f"transformer.h.{i}."
        yield h + "norm_1.weight", (D,)
        if i % 2 == 0:
            yield from ((h + "attn." + name, shape) for name, shape in {
                "in_proj.weight": (2 * INNER, D), "conv1d.weight": (INNER, 1, K), "conv1d.bias": (INNER,), "x_proj.weight": (R + 2 * N, INNER), "dt_proj.weight": (INNER, R),
                "dt_proj.bias": (INNER,), "A_log": (INNER, N), "D": (INNER,), "out_proj.weight": (D, INNER)}.items())
        else:
            yield h + "attn.attn.weight", ((H + 2 * G) * P, D)
            yield h + "attn.proj.weight", (D, D)
        yield h + "norm_2.weight", (D,)
        yield h + "mlp.swiglu.w1.weight", (FF, D)
        yield h + "mlp.swiglu.w2.weight", (FF, D)
        yield h + "mlp.swiglu.w3.weight", (D, FF)
    yield "transformer.ln_f.weight", (D,)


def fresh(name, shape, generator):
    noise = torch.randn(shape, generator=generator, dtype=torch.float32)
    if name.endswith("A_log"): return torch.log(torch.arange(1, N + 1, dtype=torch.float32)).expand(shape) + 0.1 * noise
    if "norm" in name or "ln_f" in name or name.endswith(".D"): return 1 + 0.2 * noise
    if name.endswith("dt_proj.bias"): return -3 + noise
    return (0.35 if "conv1d" in name else 0.2) * noise


def rms(x, weight): return weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + CONFIG["norm_eps"])


def mamba(x, w):
    batch, length, _ = x.shape
    u, z = (x @ w["in_proj.weight"].T).split(INNER, -1)
    padded = F.pad(u, (0, 0, K - 1, 0))
    u = F.silu(sum(padded[:, k:k + length] * w["conv1d.weight"][:, 0, k] for k in range(K)) + w["conv1d.bias"])
    dt, b, c = (u @ w["x_proj.weight"].T).split([R, N, N], -1)
    delta, a = F.softplus(dt @ w["dt_proj.weight"].T + w["dt_proj.bias"]), -torch.exp(w["A_log"])
    state, rows = torch.zeros(batch, INNER, N, dtype=x.dtype), []
    for t in range(length):
        state = torch.exp(delta[:, t, :, None] * a) * state + (delta[:, t] * u[:, t])[..., None] * b[:, t, None]
        rows.append((state * c[:, t, None]).sum(-1) + w["D"] * u[:, t])
    return (torch.stack(rows, 1) * F.silu(z)) @ w["out_proj.weight"].T


def rotate(x):
    inverse = 10000.0 ** (-torch.arange(0, P, 2, dtype=torch.float64) / P)
    angle = torch.outer(torch.arange(x.shape[1], dtype=torch.float64), inverse)
    cosine, sine = (table.to(torch.bfloat16).to(x.dtype)[:, None] for table in (angle.cos(), angle.sin()))      # the tables are kept in bfloat16
    left, right = x.chunk(2, -1)
    return torch.cat([left * cosine - right * sine, right * cosine + left * sine], -1)


def attention(x, w):
    batch, length, _ = x.shape
    q, k, v = (x @ w["attn.weight"].T).view(batch, length, G, H // G + 2, P).split([H // G, 1, 1], -2)
    q, k, v = rotate(q.reshape(batch, length, H, P)), rotate(k.reshape(batch, length, G, P)), v.reshape(batch, length, G, P)
    k, v = k.repeat_interleave(H // G, 2), v.repeat_interleave(H // G, 2)
    scores = torch.einsum("bihp,bjhp->bhij", q, k) / math.sqrt(P)
    distance = torch.arange(length)[:, None] - torch.arange(length)
    scores = scores.masked_fill((distance < 0) | (distance >= WINDOW), -math.inf)
    return torch.einsum("bhij,bjhp->bihp", scores.softmax(-1), v).reshape(batch, length, D) @ w["proj.weight"].T


def forward(weights, ids):
    h = weights["transformer.wte.weight"][ids]
    for i in range(LAYERS):
        start = f"transformer.h.{i}."
        w = {name[len(start):]: value for name, value in weights.items() if name.startswith(start)}
        mixer = {name[len("attn."):]: value for name, value in w.items() if name.startswith("attn.")}
        h = h + (mamba if i % 2 == 0 else attention)(rms(h, w["norm_1.weight"]), mixer)
        x = rms(h, w["norm_2.weight"])
        h = h + (F.silu(x @ w["mlp.swiglu.w1.weight"].T) * (x @ w["mlp.swiglu.w2.weight"].T)) @ w["mlp.swiglu.w3.weight"].T
    return rms(h, weights["transformer.ln_f.weight"]) @ weights["transformer.wte.weight"].T


def main(folder):
    generator = torch.Generator().manual_seed(8)
    stored = {name: fresh(name, shape, generator).contiguous() for name, shape in shapes()}
    weights = {name: value.double().requires_grad_() for name, value in stored.items()}
    ids = torch.randint(0, V, (2, 37), generator=generator)
    logits = forward(weights, ids)
    loss = F.cross_entropy(logits[:, :-1].reshape(-1, V), ids[:, 1:].reshape(-1))
    loss.backward()
    expected = {"input_ids": ids, "logits": logits.detach(), "loss": loss.detach()} | {"grad." + name: value.grad for name, value in weights.items()}
    prompt = torch.randint(0, V, (1, 9), generator=generator)
    text, steps = prompt, []
    with torch.no_grad():
        for _ in range(16):
            steps.append(forward(weights, text)[0, -1])
            best = steps[-1].topk(2).values
            assert best[0] - best[1] > 1e-2, "the next token hangs on rounding; take another seed"
            text = torch.cat([text, steps[-1].argmax().view(1, 1)], 1)
    expected |= {"prompt_ids": prompt, "generated_ids": text, "step_logits": torch.stack(steps)}
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as file: file.write(json.dumps(CONFIG, indent=2, sort_keys=True) + "\n")
    save_file(stored, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    save_file({name: value.contiguous() if value.dtype == torch.int64 else value.float().contiguous() for name, value in expected.items()}, os.path.join(folder, "expected.safetensors"))


main(sys.argv[1])

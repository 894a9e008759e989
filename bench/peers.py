"""transformers on PyTorch, CPU, float32, on the shapes of PeerSpeed.cs: a training step of batch 4 and 512 tokens, and decoding with the cache.
usage: peers.py mamba2|zamba2 THREADS"""
import sys, time, torch, transformers
kind, threads = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(threads)
V, B, L = 8192, 4, 512
if kind == "mamba2":
    config = transformers.Mamba2Config(vocab_size=V, hidden_size=512, num_hidden_layers=8, num_heads=16, head_dim=64, state_size=64, n_groups=1, expand=2, chunk_size=64, tie_word_embeddings=True)
    model = transformers.Mamba2ForCausalLM(config)
else:
    config = transformers.Zamba2Config(vocab_size=V, hidden_size=512, num_hidden_layers=8, layers_block_type=["mamba", "mamba", "hybrid", "mamba", "mamba", "mamba", "hybrid", "mamba"],
        intermediate_size=2048, n_mamba_heads=16, mamba_headdim=64, mamba_d_state=64, mamba_ngroups=1, num_attention_heads=16, num_key_value_heads=16, attention_head_dim=64, attention_hidden_size=1024,
        num_mem_blocks=1, adapter_rank=64, use_mem_rope=True, chunk_size=64, use_mamba_kernels=False)
    model = transformers.Zamba2ForCausalLM(config)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
ids = (torch.arange(B * L) * 31 % V).view(B, L)
best = 1e9
for _ in range(3):
    start = time.perf_counter()
    optimizer.zero_grad()
    model(input_ids=ids, labels=ids).loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    best = min(best, time.perf_counter() - start)
print(f"{kind}-512\ttraining step s\t{best:.4g}", flush=True)
model.eval()
fast = 0
with torch.no_grad():
    for _ in range(2):
        model.generate(ids[:1, :8], max_new_tokens=2, min_new_tokens=2, do_sample=False)
        start = time.perf_counter()
        model.generate(ids[:1, :8], max_new_tokens=33, min_new_tokens=33, do_sample=False)
        fast = max(fast, 32 / (time.perf_counter() - start))
print(f"{kind}-512\tdecode tok/s\t{fast:.4g}")

"""PyTorch on the GPU beside the rows of `ZEngine.Bench device cuda`: reads them as JSON from the standard input, writes one line a row.
The time of a row is that of the faster way of those that work: eager, or torch.compile; attention, products and optimizers also have their own kernels.
A row that PyTorch has no op for (the scans without mamba_ssm) has no line. Events of the device, medians of 7 rounds of about 20 ms, as in the bench."""
import json, sys, torch
import torch.nn.functional as F

device = "cuda"
types = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def seconds(run):
    for _ in range(3):
        run()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def round_of(calls):
        start.record()
        for _ in range(calls):
            run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / calls

    calls = max(1, min(1000, int(20 / max(round_of(1), 1e-3))))
    return sorted(round_of(calls) for _ in range(7))[3]


def rope(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def experts(x, chosen, weights, up, down):
    y = torch.zeros_like(x)
    for e in range(up.shape[0]):
        token, slot = torch.where(chosen == e)
        gate, linear = (x[token] @ up[e].T).chunk(2, -1)
        y.index_add_(0, token, (F.silu(gate) * linear) @ down[e].T * weights[token, slot, None].to(x.dtype))
    return y


def operands(op, s, dtype):
    """The forward pass and the inputs that have gradients, or None."""
    def normal(*shape, type=dtype):
        return torch.randn(*shape, device=device, dtype=type, requires_grad=True)
    flat = (s["T"], s["D"]) if "T" in s and "D" in s else None
    if op == "Elementwise":
        x = normal(*flat); return lambda: F.silu(x), [x]
    if op == "Reduce":
        x = normal(*flat); return lambda: x.sum(-1), [x]
    if op == "GatedActivation":
        gate, up = normal(s["T"], s["F"]), normal(s["T"], s["F"]); return lambda: F.silu(gate) * up, [gate, up]
    if op == "CausalConv1d":
        try:
            from causal_conv1d import causal_conv1d_fn
            x, w, b = normal(s["B"], s["L"], s["D"]), normal(s["D"], s["K"]), normal(s["D"])
            return lambda: causal_conv1d_fn(x.transpose(1, 2), w, b, activation="silu"), [x, w, b]
        except ImportError:
            x, w, b = normal(s["B"], s["D"], s["L"]), normal(s["D"], 1, s["K"]), normal(s["D"])
            return lambda: F.silu(F.conv1d(F.pad(x, (s["K"] - 1, 0)), w, b, groups=s["D"])), [x, w, b]
    if op == "RmsNorm":
        x, w = normal(*flat), normal(s["D"]); return lambda: F.rms_norm(x, (s["D"],), w, 1e-5), [x, w]
    if op == "RmsNorm gated":
        x, w, z = normal(*flat), normal(s["D"]), normal(*flat); return lambda: F.rms_norm(x * F.silu(z), (s["D"],), w, 1e-5), [x, w, z]
    if op == "LayerNorm":
        x, w, b = normal(*flat), normal(s["D"]), normal(s["D"]); return lambda: F.layer_norm(x, (s["D"],), w, b, 1e-5), [x, w, b]
    if op == "Embedding":
        table, tokens = normal(s["V"], s["D"]), torch.randint(s["V"], (s["T"],), device=device); return lambda: F.embedding(tokens, table), [table]
    if op == "Rope":
        x = normal(s["B"], s["L"], s["H"], s["P"])
        cos, sin = (torch.randn(s["L"], 1, s["P"] // 2, device=device, dtype=dtype) for _ in range(2))
        return lambda: rope(x, cos, sin), [x]
    if op == "CrossEntropy":
        x, t = normal(s["T"], s["V"]), torch.randint(s["V"], (s["T"],), device=device); return lambda: F.cross_entropy(x, t), [x]
    if op == "MatMul":
        x, w = normal(s["M"], s["K"]), normal(s["N"], s["K"]); return lambda: F.linear(x, w), [x, w]
    if op == "GroupedExperts":
        x, up, down = normal(s["T"], s["D"]), normal(s["E"], 2 * s["F"], s["D"]), normal(s["E"], s["D"], s["F"])
        weights, chosen = torch.randn(s["T"], s["E"], device=device).softmax(-1).topk(s["S"])
        return lambda: experts(x, chosen, weights, up, down), [x, up, down]
    if op == "Attention":
        q, k, v = (normal(s["B"], s["H"], s["L"], s["P"]) for _ in range(3)); return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True), [q, k, v]
    if op == "SelectiveScan":
        try:
            from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
        except ImportError:
            return None
        u, dt, z = (normal(s["B"], s["D"], s["L"]) for _ in range(3))
        b, c, a, d = normal(s["B"], s["N"], s["L"]), normal(s["B"], s["N"], s["L"]), normal(s["D"], s["N"], type=torch.float32), normal(s["D"], type=torch.float32)
        return lambda: selective_scan_fn(u, dt, -a.exp(), b, c, d, z, delta_softplus=True), [u, dt, z, b, c, a, d]
    if op == "SsdScan":
        try:
            from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
        except ImportError:
            return None
        x, dt = normal(s["B"], s["L"], s["H"], s["P"]), normal(s["B"], s["L"], s["H"])
        b, c, d, bias = normal(s["B"], s["L"], 1, s["N"]), normal(s["B"], s["L"], 1, s["N"]), normal(s["H"], type=torch.float32), normal(s["H"], type=torch.float32)
        a = torch.full((s["H"],), -1.0, device=device, requires_grad=True)
        return lambda: mamba_chunk_scan_combined(x, dt, a, b, c, chunk_size=256, D=d, dt_bias=bias, dt_softplus=True), [x, dt, a, b, c, d, bias]
    return None


def measure(row):
    s, dtype = row["sizes"], types[row["dtype"]]
    if row["op"] == "AdamW":
        p = torch.randn(s["N"], device=device, requires_grad=True)
        p.grad = torch.randn(s["N"], device=device)
        return seconds(torch.optim.AdamW([p], lr=1e-4, fused=True).step), "fused"
    made = operands(row["op"], s, dtype)
    if made is None:
        return None
    forward, inputs = made
    best = None
    # Loops over experts and foreign kernels gain nothing from being compiled.
    ways = ["eager"] if row["op"] in ("GroupedExperts", "Attention", "MatMul", "SelectiveScan", "SsdScan") else ["eager", "compiled"]
    for way in ways:
        call = forward if way == "eager" else torch.compile(forward)
        try:
            if row["pass"] == "forward":
                def run():
                    with torch.no_grad():
                        call()
            else:
                dy = torch.randn_like(call())
                def run():
                    torch.autograd.grad(call(), inputs, dy)
            ms = seconds(run)
        except Exception as error:
            if way == "eager":
                raise
            print(f"{row['op']} {row['pass']}: torch.compile failed: {error}", file=sys.stderr)
            continue
        if best is None or ms < best[0]:
            best = (ms, way)
    return best


rows = json.load(sys.stdin)
print(json.dumps({"torch": f"{torch.__version__}, CUDA {torch.version.cuda}, {torch.cuda.get_device_name()}"}), flush=True)
for index, row in enumerate(rows):
    result = measure(row)
    torch._dynamo.reset()
    torch.cuda.empty_cache()
    if result is not None:
        print(json.dumps({"row": index, "ms": result[0], "way": result[1]}), flush=True)

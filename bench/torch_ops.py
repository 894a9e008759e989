"""PyTorch on the GPU beside the rows of `ZEngine.Bench device cuda`: reads them as JSON from the standard input, writes one line a row.
The time of a row is that of the fastest way of those that work: eager, or torch.compile; of attention each backend of scaled_dot_product_attention. Every way's
time is written. A decoded token is attention alone: rotation and append, which the engine's row has, are left to it.
A row that PyTorch has no op for (the scans without mamba_ssm) has no line. Events of the device, medians of 7 rounds of about 20 ms, as in the bench."""
import json, sys, torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

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


def operands(op, s, dtype, stage):
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
    if op == "Linear gelu":
        x, w, b = normal(s["M"], s["K"]), normal(s["N"], s["K"]), normal(s["N"]); return lambda: F.gelu(F.linear(x, w, b), approximate="tanh"), [x, w, b]
    if op == "GroupedExperts":
        x, up, down = normal(s["T"], s["D"]), normal(s["E"], 2 * s["F"], s["D"]), normal(s["E"], s["D"], s["F"])
        weights, chosen = torch.randn(s["T"], s["E"], device=device).softmax(-1).topk(s["S"])
        return lambda: experts(x, chosen, weights, up, down), [x, up, down]
    if op == "Attention":
        q, k, v = normal(s["B"], s["H"], s["L"], s["P"]), normal(s["B"], s["G"], s["L"], s["P"]), normal(s["B"], s["G"], s["L"], s["P"])
        grouped, mask = s["G"] < s["H"], None
        if s["window"]:
            i = torch.arange(s["L"], device=device); mask = (i[:, None] >= i) & (i[:, None] - i < s["window"])
        return lambda: F.scaled_dot_product_attention(q, k, v, mask, is_causal=bool(s["causal"]) and mask is None, enable_gqa=grouped), [q, k, v]
    if op == "AttentionDecode" and stage == "decode":
        q, k, v = normal(s["B"], s["H"], 1, s["P"]), normal(s["B"], s["G"], s["S"], s["P"]), normal(s["B"], s["G"], s["S"], s["P"])
        return lambda: F.scaled_dot_product_attention(q, k, v, enable_gqa=s["G"] < s["H"]), [q, k, v]
    if op == "StateUpdate":
        try:
            from mamba_ssm.ops.triton.selective_state_update import selective_state_update
            from causal_conv1d import causal_conv1d_update
        except ImportError:
            return None
        h, p, n = s["H"], s["P"], s["N"]
        width = h * p + 2 * n
        xbc, dt = normal(s["B"], width), normal(s["B"], h)
        conv, state = torch.randn(s["B"], width, s["K"], device=device, dtype=dtype), torch.randn(s["B"], h, p, n, device=device, dtype=dtype if stage == "halves" else torch.float32)
        w, bias, a, d = normal(width, s["K"]), normal(width), torch.full((h,), -1.0, device=device), torch.randn(h, device=device)
        def step():
            y = causal_conv1d_update(xbc, conv, w, bias, "silu")
            x, b, c = y.split([h * p, n, n], -1)
            return selective_state_update(state, x.view(-1, h, p), dt.unsqueeze(-1).expand(-1, -1, p), a.view(h, 1, 1).expand(h, p, n), b.unsqueeze(1), c.unsqueeze(1), d.view(h, 1).expand(h, p), dt_softplus=True)
        return step, []
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
    if op == "Mamba2Scan":
        try:
            from mamba_ssm.ops.triton.ssd_combined import mamba_split_conv1d_scan_combined
        except ImportError:
            return None
        h, p, n = s["H"], s["P"], s["N"]
        channels = h * p + 2 * n
        zxbcdt, w, bias, norm = normal(s["B"], s["L"], h * p + channels + h), normal(channels, s["K"]), normal(channels), normal(h * p)
        d, dt_bias, a = normal(h, type=torch.float32), normal(h, type=torch.float32), torch.full((h,), -1.0, device=device, requires_grad=True)
        return lambda: mamba_split_conv1d_scan_combined(
            zxbcdt, w, bias, dt_bias, a, d, chunk_size=256, activation="silu", rmsnorm_weight=norm, rmsnorm_eps=1e-5, headdim=p, ngroups=1, norm_before_gate=False), [zxbcdt, a, w, norm, bias, d, dt_bias]
    return None


def ways_of(op, forward):
    if op in ("Attention", "AttentionDecode"):
        def by(backend):
            def call():
                with sdpa_kernel(backend):
                    return forward()
            return call
        return {name: by(backend) for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("efficient", SDPBackend.EFFICIENT_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION), ("math", SDPBackend.MATH))}
    # Loops over experts and foreign kernels gain nothing from being compiled.
    if op in ("GroupedExperts", "MatMul", "SelectiveScan", "SsdScan", "Mamba2Scan", "StateUpdate"):
        return {"eager": forward}
    return {"eager": forward, "compiled": torch.compile(forward)}


def measure(row):
    s, dtype = row["sizes"], types[row["dtype"]]
    if row["op"] == "AdamW":
        p = torch.randn(s["N"], device=device, requires_grad=True)
        p.grad = torch.randn(s["N"], device=device)
        return {"fused": seconds(torch.optim.AdamW([p], lr=1e-4, fused=True).step)}
    made = operands(row["op"], s, dtype, row["pass"])
    if made is None:
        return {}
    forward, inputs = made
    times = {}
    for way, call in ways_of(row["op"], forward).items():
        try:
            if row["pass"] == "train":
                dy = torch.randn_like(call())
                def run():
                    torch.autograd.grad(call(), inputs, dy)
            else:
                def run():
                    with torch.no_grad():
                        call()
            times[way] = seconds(run)
        except Exception as error:
            if way == "eager":
                raise
            print(f"{row['op']} {row['pass']} {s}: {way} failed: {str(error).splitlines()[0]}", file=sys.stderr)
    return times


rows = json.load(sys.stdin)
print(json.dumps({"torch": f"{torch.__version__}, CUDA {torch.version.cuda}, {torch.cuda.get_device_name()}"}), flush=True)
for index, row in enumerate(rows):
    times = measure(row)
    torch._dynamo.reset()
    torch.cuda.empty_cache()
    for way, ms in times.items():
        print(json.dumps({"row": index, "ms": ms, "way": way}), flush=True)

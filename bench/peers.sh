#!/usr/bin/env bash
# ZEngine beside llama.cpp and beside transformers on PyTorch, on the CPU, in one run and in turns: medians of the turns and of their ratios.
# usage: peers.sh ROOT [threads] [shape]     shape: mamba2-768, llama-768, mamba2-512 or zamba2-512; default: all
#        ROOT: a system folder that holds llama-bench and python3 with torch, transformers and gguf, and in /root mamba2.gguf and llama.gguf,
#        random weights with d 768, 24 layers, vocabulary 8192
set -euo pipefail
root=${1:?usage: peers.sh ROOT [threads] [shape]} threads=${2:-$(nproc)} only=${3:-}
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export ZENGINE_THREADS=$threads
dotnet build "$here/ZEngine.Bench" -c Release -v quiet -nologo -clp:ErrorsOnly >&2
cp "$here/peers.py" "$root/root/"

bench() { dotnet "$here/ZEngine.Bench/bin/Release/net10.0/ZEngine.Bench.dll" "$@"; }
ours() { bench peers "$1" | sed 's/^/zengine\t/'; }
llama() {
    chroot "$root" llama-bench -m "/root/${1%-768}.gguf" -p 512 -n 32 -t "$threads" -r 5 -o csv 2>/dev/null | tr -d '"' |
        awk -F, -v shape="$1" 'NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
            { print "llama.cpp\t" shape "\t" ($column["n_prompt"] > 0 ? "prefill 512 tok/s" : "decode tok/s") "\t" $column["avg_ts"] }'
}
transformers() { chroot "$root" python3 /root/peers.py "${1%-512}" "$threads" 2>/dev/null | sed 's/^/transformers\t/'; }

turns() { # SHAPE PEER COUNT
    [[ -z $only || $only == "$1" ]] || return 0
    for _ in $(seq "$3"); do ours "$1"; "$2" "$1"; done
}
{ turns mamba2-768 llama 5; turns llama-768 llama 5; turns mamba2-512 transformers 1; turns zamba2-512 transformers 1; } | tee >(cat >&2) | bench peers -

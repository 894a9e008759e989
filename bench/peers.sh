#!/usr/bin/env bash
# ZEngine beside llama.cpp and beside transformers on PyTorch, on the CPU, in one run and in turns.
# usage: peers.sh ROOT [threads]     ROOT: a system folder that holds llama-bench and python3 with torch, transformers and gguf, and in /root
#                                    mamba2.gguf and llama.gguf, random weights with d 768, 24 layers, vocabulary 8192
set -euo pipefail
root=${1:?usage: peers.sh ROOT [threads]} threads=${2:-$(nproc)}
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export ZENGINE_THREADS=$threads
dotnet build "$here/ZEngine.Bench" -c Release -v quiet -nologo -clp:ErrorsOnly
ours() { dotnet "$here/ZEngine.Bench/bin/Release/net10.0/ZEngine.Bench.dll" peers "$1" | sed 's/^/zengine\t/'; }
cp "$here/peers.py" "$root/root/"
for kind in mamba2 llama; do
    ours "$kind-768"
    chroot "$root" llama-bench -m "/root/$kind.gguf" -p 512 -n 32 -t "$threads" -r 3 -o csv 2>/dev/null | tail -n 2 | awk -F'","' -v k="$kind-768" '{ print "llama.cpp\t" k "\t" $0 }'
    ours "$kind-768"
done
for kind in mamba2 zamba2; do
    ours "$kind-512"
    chroot "$root" python3 /root/peers.py "$kind" "$threads" 2>/dev/null | sed 's/^/transformers\t/'
    ours "$kind-512"
done

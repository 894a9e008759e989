#!/usr/bin/env bash
# Makes artifacts/zengine-linux-x64.tar.xz: command line, tests, benches, kernels as source and as PTX, and the .NET runtime, for a Linux x64
# machine that has a CUDA driver and nothing else. Twin of make.ps1. Needs NVRTC (tests/fetch-cuda.sh nvrtc FOLDER, ZENGINE_NVRTC) and git.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
runtime=linux-x64 out="$root/artifacts" limit=$((60 << 20))
stage="$out/zengine-$runtime" archive="$out/zengine-$runtime.tar.xz"
rm -rf "$stage" "$archive"
mkdir -p "$stage/bin"

dotnet build "$root/src/ZEngine.Cli" -c Release -v quiet -nologo -clp:ErrorsOnly
dotnet "$root/src/ZEngine.Cli/bin/Release/net10.0/ZEngine.Cli.dll" pack-kernels "$out/kernels.pack"
for project in src/ZEngine.Cli tests/ZEngine.CrashHost tests/ZEngine.Tests bench/ZEngine.Bench; do
    dotnet publish "$root/$project" -c Release -r "$runtime" --self-contained -v quiet -nologo -clp:ErrorsOnly \
        -p:KernelPack="$out/kernels.pack" -p:DebugType=none -p:GenerateDocumentationFile=false -o "$stage/bin"
done
# What the packages of test platforms bring for Visual Studio: coverage of native code, other systems, other languages.
(cd "$stage/bin" && rm -rf CodeCoverage InstrumentationEngine alpine macos ubuntu amd64 arm64 x86 cs de es fr it ja ko pl pt-BR ru tr zh-Hans zh-Hant)
# The sources without what lies in bin already: tests read kernels and stubs, and people read the rest.
mkdir -p "$stage/repository"
(cd "$root" && git ls-files -z --cached --others --exclude-standard | grep -zv '^tests/ZEngine.Tests/golden/' | tar --null -T - --ignore-failed-read -cf - 2> /dev/null) | tar -xf - -C "$stage/repository"
cp "$root/bundle/zengine" "$root/bundle/zengine-check" "$stage/"
cp "$root/bundle/README.txt" "$root/LICENSE" "$stage/"
chmod +x "$stage/zengine" "$stage/zengine-check"

XZ_OPT="-6 -T0" tar -C "$out" -cJf "$archive" --owner=0 --group=0 --sort=name "zengine-$runtime"
bytes=$(stat -c %s "$archive")
echo "$archive: $((bytes >> 20)) MiB packed, $(du -sm "$stage" | cut -f1) MiB unpacked."
if ((bytes > limit)); then echo "bundle: the archive is larger than $((limit >> 20)) MiB." >&2; exit 1; fi

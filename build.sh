#!/usr/bin/env bash
# Builds and tests ZEngine; twin of build.ps1.
#   ./build.sh                  restore, build and test everything
#   ./build.sh test [filter]    run the tests, or those whose full name contains the filter
#   ./build.sh bench [filter]   run the measurements, or those whose name contains the filter
#   ./build.sh demo [file...]   train the demo model on this repository or on the files, and let it write
#   ./build.sh bundle           one archive that runs on a Linux x64 machine with a CUDA driver and no .NET
#   ./build.sh pack             NuGet packages with PTX of all kernels, for machines without NVRTC
#   ./build.sh clean            remove what the build made
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1

build() { dotnet build "$root/ZEngine.sln" -c Release -v quiet -nologo -clp:ErrorsOnly; }
tests() { dotnet run --project "$root/tests/ZEngine.Tests" -c Release -- -reporter zengine -parallel none -noColor "$@"; }
pack() {
    local kernels="$root/artifacts/kernels.pack"
    mkdir -p "$root/artifacts"
    dotnet run --project "$root/src/ZEngine.Cli" -c Release -- pack-kernels "$kernels"
    dotnet pack "$root/ZEngine.sln" -c Release -v quiet -nologo -clp:ErrorsOnly -p:KernelPack="$kernels" -o "$root/artifacts/packages"
}

verb="${1-}"
[ $# -eq 0 ] || shift
case "$verb" in
    "") build && tests ;;
    test) tests ${1:+-method "*$1*"} ;;
    bench) dotnet run --project "$root/bench/ZEngine.Bench" -c Release -- "$@" ;;
    demo) dotnet run --project "$root/src/ZEngine.Cli" -c Release -- demo "$@" ;;
    bundle) "$root/bundle/make.sh" ;;
    pack) pack ;;
    clean) dotnet clean "$root/ZEngine.sln" -c Release -v quiet -nologo ;;
    *) echo "build.sh: no verb '$verb'; the verbs are test, bench, demo, bundle, pack and clean, and none means build and test." >&2; exit 2 ;;
esac

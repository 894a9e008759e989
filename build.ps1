# Builds and tests ZEngine; twin of build.sh.
#   ./build.ps1                  restore, build and test everything
#   ./build.ps1 test [filter]    run the tests, or those whose full name contains the filter
#   ./build.ps1 bench [filter]   run the measurements, or those whose name contains the filter
#   ./build.ps1 demo [file...]   train the demo model on this repository or on the files, and let it write
#   ./build.ps1 bundle           one archive that runs on a Linux x64 machine with a CUDA driver and no .NET
#   ./build.ps1 pack             NuGet packages with PTX of all kernels, for machines without NVRTC
#   ./build.ps1 clean            remove what the build made
$ErrorActionPreference = 'Stop'
$root = $PSScriptRoot
$env:DOTNET_CLI_TELEMETRY_OPTOUT = '1'
$env:DOTNET_NOLOGO = '1'

function Invoke-Build { dotnet build "$root/ZEngine.sln" -c Release -v quiet -nologo '-clp:ErrorsOnly' }
function Invoke-Tests([string[]] $filter) { dotnet run --project "$root/tests/ZEngine.Tests" -c Release -- -reporter zengine -parallel none -noColor $filter }
function Invoke-Pack {
    $kernels = "$root/artifacts/kernels.pack"
    New-Item "$root/artifacts" -ItemType Directory -Force | Out-Null
    dotnet run --project "$root/src/ZEngine.Cli" -c Release -- pack-kernels $kernels
    if ($LASTEXITCODE -eq 0) { dotnet pack "$root/ZEngine.sln" -c Release -v quiet -nologo '-clp:ErrorsOnly' "-p:KernelPack=$kernels" -o "$root/artifacts/packages" }
}

$verb = if ($args.Count -gt 0) { [string] $args[0] } else { '' }
$rest = @($args | Select-Object -Skip 1)
switch ($verb) {
    '' { Invoke-Build; if ($LASTEXITCODE -eq 0) { Invoke-Tests @() } }
    'test' { if ($rest.Count -gt 0) { Invoke-Tests @('-method', "*$($rest[0])*") } else { Invoke-Tests @() } }
    'bench' { dotnet run --project "$root/bench/ZEngine.Bench" -c Release -- $rest }
    'demo' { dotnet run --project "$root/src/ZEngine.Cli" -c Release -- demo $rest }
    'bundle' { & "$root/bundle/make.ps1" }
    'pack' { Invoke-Pack }
    'clean' { dotnet clean "$root/ZEngine.sln" -c Release -v quiet -nologo }
    default {
        [Console]::Error.WriteLine("build.ps1: no verb '$verb'; the verbs are test, bench, demo, bundle, pack and clean, and none means build and test.")
        exit 2
    }
}
exit $LASTEXITCODE

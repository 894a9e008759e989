# Makes artifacts/zengine-linux-x64.tar.xz; twin of make.sh, which says what is in it. An archive that was packed on Windows has no permissions:
# start `bash zengine-check` once, which sets them. Needs NVRTC (ZENGINE_NVRTC) and git.
$ErrorActionPreference = 'Stop'
$root = Split-Path -Parent $PSScriptRoot
$runtime = 'linux-x64'
$out = Join-Path $root 'artifacts'
$limit = 60MB
$stage = Join-Path $out "zengine-$runtime"
$archive = "$stage.tar.xz"
function Invoke-Checked([scriptblock] $command) { & $command; if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE } }

if (Test-Path $stage) { Remove-Item $stage -Recurse -Force }
if (Test-Path $archive) { Remove-Item $archive }
New-Item (Join-Path $stage 'bin') -ItemType Directory -Force | Out-Null

Invoke-Checked { dotnet build "$root/src/ZEngine.Cli" -c Release -v quiet -nologo '-clp:ErrorsOnly' }
Invoke-Checked { dotnet "$root/src/ZEngine.Cli/bin/Release/net10.0/ZEngine.Cli.dll" pack-kernels "$out/kernels.pack" }
foreach ($project in 'src/ZEngine.Cli', 'tests/ZEngine.CrashHost', 'tests/ZEngine.Tests', 'bench/ZEngine.Bench') {
    Invoke-Checked { dotnet publish "$root/$project" -c Release -r $runtime --self-contained -v quiet -nologo '-clp:ErrorsOnly' "-p:KernelPack=$out/kernels.pack" '-p:DebugType=none' '-p:GenerateDocumentationFile=false' -o "$stage/bin" }
}
# What the packages of test platforms bring for Visual Studio: coverage of native code, other systems, other languages.
foreach ($folder in 'CodeCoverage', 'InstrumentationEngine', 'alpine', 'macos', 'ubuntu', 'amd64', 'arm64', 'x86', 'cs', 'de', 'es', 'fr', 'it', 'ja', 'ko', 'pl', 'pt-BR', 'ru', 'tr', 'zh-Hans', 'zh-Hant') {
    if (Test-Path "$stage/bin/$folder") { Remove-Item "$stage/bin/$folder" -Recurse -Force }
}
foreach ($file in git -C $root ls-files --cached --others --exclude-standard) {
    if ($file.StartsWith('tests/ZEngine.Tests/golden/') -or -not (Test-Path "$root/$file")) { continue }
    $to = Join-Path "$stage/repository" $file
    New-Item (Split-Path -Parent $to) -ItemType Directory -Force | Out-Null
    Copy-Item "$root/$file" $to
}
foreach ($file in 'bundle/zengine', 'bundle/zengine-check', 'bundle/README.txt', 'LICENSE') { Copy-Item "$root/$file" $stage }

Invoke-Checked { tar -C $out -cJf $archive "zengine-$runtime" }
$bytes = (Get-Item $archive).Length
"${archive}: $([math]::Floor($bytes / 1MB)) MiB packed."
if ($bytes -gt $limit) { [Console]::Error.WriteLine("bundle: the archive is larger than $($limit / 1MB) MiB."); exit 1 }

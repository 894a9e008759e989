#!/usr/bin/env bash
# Puts a CUDA library into a folder: nvrtc, the run-time compiler of CUDA C++ (17 MB), or cublaslt, matrix products (181 MB). Neither needs a
# GPU to be loaded; nothing is installed and no system file changes. The packages come from the Debian mirror this machine is configured with.
# Elsewhere: install the CUDA toolkit 12 or 13, or the Python wheels nvidia-cuda-nvrtc-cu12 and nvidia-cublas-cu12, or set ZENGINE_NVRTC or
# ZENGINE_CUBLASLT to the folder of the library.
# usage: fetch-cuda.sh nvrtc|cublaslt FOLDER
set -euo pipefail
library=${1:?usage: fetch-cuda.sh nvrtc|cublaslt FOLDER} folder=${2:?usage: fetch-cuda.sh nvrtc|cublaslt FOLDER}
suite=trixie version=12.4
case $library in
    nvrtc) packages=(libnvrtc12 "libnvrtc-builtins$version") files='libnvrtc*.so*' found="$folder/libnvrtc-builtins.so.$version" wheel=nvidia-cuda-nvrtc-cu12 ;;
    cublaslt) packages=(libcublaslt12) files='libcublasLt*.so*' found="$folder/libcublasLt.so.12" wheel=nvidia-cublas-cu12 ;;
    *) echo "fetch-cuda: no library '$library'; there are nvrtc and cublaslt" >&2; exit 2 ;;
esac
if [[ -e $found ]]; then exit 0; fi
fail() { echo "fetch-cuda: $*; install the CUDA toolkit or the wheel $wheel, or set ZENGINE_${library^^}" >&2; exit 1; }
command -v apt-get > /dev/null || fail "this is no Debian system"

mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2> /dev/null | grep -m1 '/debian/\?$' || true)
if [[ -z $mirror ]]; then
    mirror=$(sed -n 's/^URIs: *\(.*\/debian\/\?\)$/\1/p' /etc/apt/sources.list.d/*.sources 2> /dev/null | head -n 1)
fi
[[ -n $mirror ]] || fail "no Debian mirror is configured"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/lists/partial "$work"/cache/archives/partial "$work"/debs "$work"/root
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite non-free" > "$work/sources.list"
options=(-o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache"
         -o Acquire::Check-Valid-Until=false -o APT::Get::List-Cleanup=0 -o APT::Sandbox::User=root)
apt-get "${options[@]}" -qq update || fail "the mirror $mirror cannot be read"
(cd "$work/debs" && apt-get "${options[@]}" -qq download "${packages[@]}") || fail "the mirror has no ${packages[*]}"
for package in "$work"/debs/*.deb; do dpkg -x "$package" "$work/root"; done

# Complete or absent: another process may be looking.
mkdir -p "$(dirname "$folder")"
staging=$(mktemp -d "$folder.XXXXXX")
chmod 755 "$staging"
# shellcheck disable=SC2086 # the pattern is to be expanded
cp -a "$work"/root/usr/lib/*/$files "$staging/"
if ! mv -T "$staging" "$folder" 2> /dev/null; then
    cp -an "$staging"/. "$folder/"
    rm -rf "$staging"
fi

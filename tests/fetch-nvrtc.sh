#!/usr/bin/env bash
# Puts NVRTC, the run-time compiler of CUDA C++, into a folder. It needs no GPU and is 17 MB; nothing is installed and no system file changes.
# The packages come from the Debian mirror this machine is configured with. Elsewhere: install the CUDA toolkit 12 or 13, or the Python
# wheel nvidia-cuda-nvrtc-cu12, or set ZENGINE_NVRTC to the folder of an NVRTC.
# usage: fetch-nvrtc.sh FOLDER
set -euo pipefail
folder=${1:?usage: fetch-nvrtc.sh FOLDER}
suite=trixie version=12.4
if [[ -e $folder/libnvrtc.so.12 && -e $folder/libnvrtc-builtins.so.$version ]]; then exit 0; fi
fail() { echo "fetch-nvrtc: $*; install the CUDA toolkit or the wheel nvidia-cuda-nvrtc-cu12, or set ZENGINE_NVRTC" >&2; exit 1; }
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
(cd "$work/debs" && apt-get "${options[@]}" -qq download libnvrtc12 "libnvrtc-builtins$version") || fail "the mirror has no libnvrtc12"
for package in "$work"/debs/*.deb; do dpkg -x "$package" "$work/root"; done

# Complete or absent: another process may be looking.
mkdir -p "$(dirname "$folder")"
staging=$(mktemp -d "$folder.XXXXXX")
chmod 755 "$staging"
cp -a "$work"/root/usr/lib/*/libnvrtc*.so* "$staging/"
if ! mv -T "$staging" "$folder" 2> /dev/null; then
    cp -an "$staging"/. "$folder/"
    rm -rf "$staging"
fi

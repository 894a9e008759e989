#!/usr/bin/env bash
# Installs Open MPI's launcher and library from Debian's packages, for the tests that start real ranks. Needs root.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get install -y --no-install-recommends openmpi-bin >/dev/null 2>&1 && exit 0
apt-get update >/dev/null
apt-get install -y --no-install-recommends openmpi-bin >/dev/null

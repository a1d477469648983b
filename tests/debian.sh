#!/usr/bin/env bash
# Installs Debian's packages of the commands that are missing. Needs root if one is.
#   tests/debian.sh COMMAND[=PACKAGE]…
set -euo pipefail
missing=()
for tool in "$@"; do
  command -v "${tool%%=*}" >/dev/null || missing+=("${tool#*=}")
done
[ ${#missing[@]} = 0 ] && exit
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null

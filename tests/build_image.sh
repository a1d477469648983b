#!/usr/bin/env bash
# Builds the image of the Dockerfile with buildah, without a container engine or a registry.
#   tests/build_image.sh NAME[:TAG] [BUILDAH_OPTION…]
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
name=$1
shift

"$here/tests/debian.sh" buildah debootstrap
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=${STORAGE_DRIVER:-vfs}
base=${BASE:-docker.io/library/python:3.11-slim-bookworm}
if [ -z "${BASE:-}" ] && ! timeout 60 buildah pull -q "$base" >/dev/null 2>&1; then
  echo "No registry of images is reachable: the base is made with debootstrap."
  base=localhost/python-bookworm
  if ! buildah inspect --type image "$base" >/dev/null 2>&1; then
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$root" >/dev/null
    container=$(buildah from scratch)
    buildah copy -q "$container" "$root" / >/dev/null
    buildah commit -q "$container" "$base" >/dev/null
    buildah rm "$container" >/dev/null
  fi
fi

# what pip needs here to reach its index stays outside the image
reach=()
for path in /etc/pip.conf /etc/ssl/certs; do
  [ -e "$path" ] && reach+=(-v "$path:$path:ro")
done
buildah build --quiet --layers --network host --build-arg "BASE=$base" "${reach[@]}" \
  --build-arg "REVISION=$(git -C "$here" rev-parse HEAD 2>/dev/null || echo unknown)" \
  --build-arg "VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' "$here/pyproject.toml")" \
  "$@" -t "$name" "$here" >/dev/null

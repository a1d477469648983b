#!/usr/bin/env bash
# Builds the image and runs it as clusters do: read-only, as a stranger, without network and without a home.
# Needs root; Debian's packages are installed if they are missing. No container engine is needed.
#   tests/container.sh [OUTPUT_FOLDER]
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-$(mktemp -d)}
tag=localhost/bids_inpaint

"$here/tests/build_image.sh" "$tag" --target app
"$here/tests/debian.sh" bwrap=bubblewrap
export STORAGE_DRIVER=${STORAGE_DRIVER:-vfs}
container=$(buildah from "$tag")
root=$(buildah mount "$container")
trap 'buildah umount "$container" >/dev/null; buildah rm "$container" >/dev/null' EXIT
echo "Image: $(du -sm "$root" | cut -f1) MB unpacked"

mkdir -p "$out/bids" "$out/results" "$out/work"
chown 12345:12345 "$out/bids" "$out/results" "$out/work"
inside() {
  bwrap --ro-bind "$root" / --dev /dev --proc /proc --perms 1777 --tmpfs /tmp --perms 1777 --tmpfs /dev/shm \
    --bind "$out/bids" /bids --bind "$out/results" /out --bind "$out/work" /work \
    --unshare-net --unshare-pid --unshare-ipc --unshare-uts --clearenv --chdir /work \
    --cap-drop ALL --cap-add CAP_SETUID --cap-add CAP_SETGID \
    --setenv PATH /opt/bids_inpaint/bin:/usr/local/bin:/usr/bin:/bin \
    --setenv TEMPLATEFLOW_HOME /opt/templateflow --setenv PYTHONDONTWRITEBYTECODE 1 \
    setpriv --reuid 12345 --regid 12345 --clear-groups "$@"
}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$here/pyproject.toml")
[ "$(inside bids_inpaint --version)" = "bids_inpaint $version" ]
inside python3 -c "from pathlib import Path; from bids_inpaint.demo import make_dataset; make_dataset(Path('/bids'))"
inside bids_inpaint /bids /out participant -w /work --sloppy
inside bids_inpaint /bids /out group -w /work --lesion-masks /bids/derivatives/painted

# the image tells what it consists of
inside python3 - <<'EOF'
import json
from importlib.metadata import distributions
from pathlib import Path

found = {
    name: {c["name"].lower() for c in json.loads(Path(f"/opt/bids_inpaint/sbom/{name}.cdx.json").read_text())["components"]}
    for name in ("python", "debian")
}
missing = {d.name.lower() for d in distributions()} - found["python"] - {"bids_inpaint"}
assert not missing, missing
assert {"libc6", "python3"} & found["debian"] or "glibc" in found["debian"], sorted(found["debian"])[:20]
EOF

(cd "$out/results" && find . -type f ! -path '*/log/*' ! -path './logs/*/*' | sed 's|^\./||' | LC_ALL=C sort) >"$out/found.txt"
diff "$here/tests/expected_outputs.txt" "$out/found.txt"
echo "The outputs are those expected."
inside env DENO_DIR=/tmp bids-validator-deno /out --ignoreNiftiHeaders --ignoreWarnings

#!/usr/bin/env bash
# Real people with painted lesions through both levels of the app and a real SPM, run by the MATLAB or Octave of this
# machine: original, inpainted and reference image of each are segmented, and compared by the group level.
#   BIDS_INPAINT_TEST_DATA=DATA tests/spm.sh SPM_DIR [OUTPUT_FOLDER [LABEL ...]]
# LABELs are people of ds002748 (35 by default), some eight minutes each.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
spm=${1:?Name the folder of SPM12 or SPM25.}
out=${2:-$(mktemp -d)}
shift $(($# < 2 ? $# : 2))
labels=("${@:-35}")
data=${BIDS_INPAINT_TEST_DATA:?Name the folder of the real datasets in BIDS_INPAINT_TEST_DATA.}
python=${PYTHON:-$here/.venv/bin/python}

cd "$out"
[ -d painted ] || "$python" -m bids_inpaint.training paint "$data/ds002748" painted --lesions "$data/lesions" \
  --participant-label "${labels[@]}" -w work
"$python" -m bids_inpaint painted results participant --segmentation spm12 --spm12 "$spm" --compare-segmentation \
  --lesion-masks painted/derivatives/painted --participant-label "${labels[@]}" -w work
"$python" -m bids_inpaint painted results group --lesion-masks painted/derivatives/painted -w work

"$python" - <<'EOF'
import csv
import json
from pathlib import Path

results = Path("results")
sidecars = [path for path in results.glob("sub-*/anat/*dseg.json") if "desc-lesions" not in path.name]
assert sidecars
assert all(json.loads(path.read_text())["Segmentation"].startswith("SPM") for path in sidecars)
with open(results / "group_desc-tissue_dice.tsv", encoding="utf-8") as file:
    rows = list(csv.DictReader(file, delimiter="\t"))
for row in rows:
    print(row)
EOF

#!/usr/bin/env bash
# Starts a SLURM of one node on loopback, runs the demo dataset as a job array and through Nipype's SLURM
# plugin, checks that both leave what a local run does, and stops it.
# Needs root and Debian; the packages are installed if they are missing.
#   tests/slurm.sh [BIDS_INPAINT_COMMAND]
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
app=$(realpath "${1:-$here/.venv/bin/bids_inpaint}")
PATH=$(dirname "$app"):$PATH
export PATH
dir=$(mktemp -d)
cores=$(nproc)
"$here/tests/debian.sh" munged=munge slurmctld slurmd sbatch=slurm-client

mkdir -p "$dir"/{spool,state,munge}
cat >"$dir/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$cores RealMemory=6000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$dir/slurm.conf

stop() {
  status=$?
  [ $status = 0 ] || tail -n 20 "$dir"/*.log >&2 || true
  scancel --user root 2>/dev/null || true
  for daemon in slurmd slurmctld munged; do
    [ -f "$dir/$daemon.pid" ] && kill "$(cat "$dir/$daemon.pid")" 2>/dev/null || true
  done
  sleep 1
  rm -rf "$dir"
  exit $status
}
trap stop EXIT

head -c 1024 /dev/urandom >"$dir/munge/key"
chown -R munge:munge "$dir/munge"
chmod 400 "$dir/munge/key"
chmod 711 "$dir"
chmod 711 "$dir/munge"
touch "$dir/munged.pid" && chown munge:munge "$dir/munged.pid"
su munge -s /bin/sh -c "munged --force --key-file=$dir/munge/key --socket=$dir/munge/socket \
  --pid-file=$dir/munged.pid --log-file=$dir/munge/log --seed-file=$dir/munge/seed"
slurmctld
slurmd
for _ in $(seq 30); do
  sinfo --noheader --format %T 2>/dev/null | grep -q idle && break
  sleep 1
done
sinfo

python -c "
import sys; from pathlib import Path; from bids_inpaint.demo import make_dataset
make_dataset(Path(sys.argv[1]))" "$dir/bids"
# one thread a step everywhere: the bias field differs in its last digits with the number of threads
quick=(--sloppy --skip-bids-validation --omp-nthreads 1)

bids_inpaint "$dir/bids" "$dir/local" participant -w "$dir/work/local" "${quick[@]}" --nprocs "$cores"

echo "As a job array, one participant a task:"
# the example of the documentation, with this dataset's two participants
sed 's/--skip-bids-validation/--sloppy &/' "$here/docs/examples/slurm-array.sh" >"$dir/array.sh"
sbatch --wait --array=1-2 --mem=2G --cpus-per-task=1 --output="$dir/array-%a.log" \
  "$dir/array.sh" "$dir/bids" "$dir/array" "$dir/work/array"

echo "Through the plugin, a step a job:"
cat >"$dir/plugin.yml" <<YAML
plugin: SLURM
plugin_args:
  sbatch_args: --cpus-per-task=1 --mem=2G
YAML
bids_inpaint "$dir/bids" "$dir/plugin" participant -w "$dir/work/plugin" "${quick[@]}" \
  --use-plugin "$dir/plugin.yml" --participant-label lesions

python - "$dir" <<'PYTHON'
import sys
from pathlib import Path

from bids_inpaint.io import images

root = Path(sys.argv[1])


def files(folder, subject):
    found = (root / folder / subject).rglob("*")
    return {p.relative_to(root / folder) for p in found if p.is_file() and "log" not in p.parts}


for folder, subjects in (("array", ("sub-lesions", "sub-healthy")), ("plugin", ("sub-lesions",))):
    for subject in subjects:
        here, there = files("local", subject), files(folder, subject)
        assert here == there, (folder, here ^ there)
        for name in sorted(n for n in here if n.name.endswith(".nii.gz")):
            a, b = (images.read(root / f / name)[0] for f in ("local", folder))
            assert (a == b).all(), f"{folder}/{name} is not what the local run made"
        print(f"{folder}: {subject}: {len(here)} files, every image equal to that of the local run")
PYTHON

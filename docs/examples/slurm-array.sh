#!/bin/bash
#SBATCH --job-name=bids_inpaint
#SBATCH --array=1-100%50
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --time=00:30:00
#SBATCH --output=bids_inpaint-%A_%a.log
# sbatch slurm-array.sh BIDS OUT WORK, with --array=1-N for N participants
set -euo pipefail
bids=$1 out=$2 work=$3
label=$(cd "$bids" && ls -d sub-*/ | sed -n "${SLURM_ARRAY_TASK_ID}p" | tr -d /)
bids_inpaint "$bids" "$out" participant --participant-label "$label" -w "$work/$label" \
  --nprocs "$SLURM_CPUS_PER_TASK" --skip-bids-validation

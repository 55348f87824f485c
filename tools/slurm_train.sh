#!/usr/bin/env bash
# Train under Slurm:
#   GPUS=16 GPUS_PER_NODE=8 tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options]
# CPUS_PER_TASK and SRUN_ARGS go to srun; the options go to train.py.
set -euo pipefail
[ $# -ge 4 ] ||
    { echo "usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [options of train.py]" >&2; exit 2; }
partition=$1 job_name=$2 config=$3 work_dir=$4
shift 4
gpus=${GPUS:-8}
gpus_per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}

# SRUN_ARGS holds several arguments and is split on purpose.
# shellcheck disable=SC2086
exec srun --partition="$partition" --job-name="$job_name" \
    --ntasks="$gpus" --ntasks-per-node="$gpus_per_node" --gres="gpu:$gpus_per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$(dirname "$0")/train.py" "$config" \
    --work-dir "$work_dir" --launcher slurm "$@"

#!/usr/bin/env bash
# Starts a Ray cluster on a Slurm allocation, runs hptune on it, and ends both: an example to be copied and changed.
#
#   sbatch --nodes=4 --gpus-per-node=8 --cpus-per-task=64 scripts/slurm_ray.sh run my.yaml --run-dir /shared/runs/mine
#
# The arguments are hptune's. hptune (with the extra `ray`) must be in the environment that jobs have on every node; only the first
# node writes, and needs to see the run directory and the data. A job that is requeued goes on where it was stopped.
#SBATCH --job-name=hptune
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
set -euo pipefail

if [ $# -eq 0 ]; then
    echo "usage: sbatch [slurm's options] scripts/slurm_ray.sh run CONFIG [hptune's options]" >&2
    exit 2
fi
nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
port=$((20000 + SLURM_JOB_ID % 20000))
head=$(srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" hostname --ip-address)
export RAY_ADDRESS=${head%% *}:$port
if ray get-auth-token --generate >/dev/null 2>&1; then # kept in the home folder, which nodes share; older versions of Ray have none
    export RAY_AUTH_MODE=token
fi
resources=(--num-cpus="${SLURM_CPUS_PER_TASK:-$(nproc)}")
if [ -n "${SLURM_GPUS_ON_NODE:-}" ]; then
    resources+=(--num-gpus="$SLURM_GPUS_ON_NODE")
fi

srun --nodes=1 --ntasks=1 --overlap --nodelist="${nodes[0]}" \
    ray start --head --block --node-ip-address="${RAY_ADDRESS%:*}" --port="$port" --include-dashboard=false "${resources[@]}" &
cluster=($!)
trap 'kill "${cluster[@]}" 2>/dev/null || true' EXIT
for _ in $(seq 60); do
    if ray status >/dev/null 2>&1; then
        break
    fi
    sleep 1
done
for node in "${nodes[@]:1}"; do
    srun --nodes=1 --ntasks=1 --overlap --nodelist="$node" ray start --block --address="$RAY_ADDRESS" "${resources[@]}" &
    cluster+=($!)
done

hptune "$@" --executor ray &
tuner=$!
trap 'kill -TERM "$tuner" 2>/dev/null || true' TERM  # it saves, and says how to go on
status=0
wait "$tuner" || status=$?
if kill -0 "$tuner" 2>/dev/null; then # the wait was ended by the signal
    status=0
    wait "$tuner" || status=$?
fi
exit "$status"

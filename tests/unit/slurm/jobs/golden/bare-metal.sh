#!/bin/bash

# Parameters
#SBATCH --account=alignment
#SBATCH --chdir=/shared
#SBATCH --cpus-per-task=12
#SBATCH --dependency=afterok:17:18
#SBATCH --exclusive
#SBATCH --gpus-per-node=8
#SBATCH --job-name=midtrain
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --open-mode=append
#SBATCH --output=/shared/runs/a/slurm/logs/%j_0_log.out
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --signal=USR2@300
#SBATCH --time=1440

# setup
unset MASTER_ADDR MASTER_PORT
trap 'echo "error: setup failed in: $MSM_SETUP" >&2' EXIT
MSM_SETUP='module load cuda'
module load cuda
[ $? -eq 0 ] || exit 2
trap - EXIT
export NCCL_IB_HCA=mlx5
export NCCL_SOCKET_IFNAME=ib0
MSM_END=$(squeue -h -j "$SLURM_JOB_ID" -o %e 2>/dev/null)
if [ -n "$MSM_END" ]; then
    export SLURM_JOB_END_TIME="${SLURM_JOB_END_TIME:-$(date -d "$MSM_END" +%s 2>/dev/null)}"
fi
export MSM_REQUEUE_MARKER=/shared/runs/a/slurm/logs/requeue_${SLURM_JOB_ID}_${SLURM_RESTART_COUNT:-0}

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /shared/runs/a/slurm/logs/%j_%t_log.out --kill-on-bad-exit=1 --export=ALL --cpus-per-task=12 /shared/venv/bin/python -P -u -m submitit.core._submit /shared/runs/a/slurm/logs


# teardown
rc=$?
if mv "$MSM_REQUEUE_MARKER" "$MSM_REQUEUE_MARKER.done" 2>/dev/null; then
    trap '' TERM
    scontrol requeue "$SLURM_JOB_ID"
    scontrol update "jobid=$SLURM_JOB_ID" "starttime=now+$(cat "$MSM_REQUEUE_MARKER.done")"
fi
exit $rc
#!/bin/bash
# Trains on several machines under Slurm. Change what is marked and submit it once:
#
#   sbatch docs/cluster/slurm.sh
#
# The job resumes by itself: shortly before its time is over, or when it is preempted, every process
# gets a signal, all of them finish the same step and save it, and Slurm puts the job back into the
# queue. It also goes back after a machine has failed, and resumes from the last save.

#SBATCH --job-name=perceiver
#SBATCH --nodes=4                  # CHANGE: machines.
#SBATCH --ntasks-per-node=8        # CHANGE: one process for each GPU: JAX takes one GPU a task.
#SBATCH --gpus-per-node=8          # CHANGE: as many.
#SBATCH --cpus-per-task=12         # CHANGE: cores that decode; see config.data.num_workers.
#SBATCH --time=24:00:00            # CHANGE: what the partition allows.
#SBATCH --requeue                  # Slurm may start it again after a failure or preemption.
#SBATCH --signal=TERM@300          # To all processes, 300 seconds before the time is over.
#SBATCH --open-mode=append         # The log goes on, too.
#SBATCH --output=perceiver-%j.log

set -u

# CHANGE: a directory that all machines see. Checkpoints and metrics are written there by one
# process and read by all.
WORKDIR=/shared/runs/imagenet

# CHANGE: the environment that the package is installed in, and its root (experiments/ is there).
source /shared/perceiver/.venv/bin/activate
cd /shared/perceiver

# Compiled programs are kept, so that resuming does not compile again.
export JAX_COMPILATION_CACHE_DIR=$WORKDIR/compilation_cache
# JAX would try to reach its own processes through a proxy.
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY

# --distributed: JAX asks Slurm for the first machine's address, how many processes there are and
# which one each is. If one dies, the others end with an error after 30 seconds. --kill-on-bad-exit
# is off, so that the first process that has saved and ends does not take the others with it.
srun --kill-on-bad-exit=0 python -m experiments.train --distributed \
  --config=experiments/configs/imagenet.py --workdir="$WORKDIR" \
  --config.data.data_dir=/shared/tensorflow_datasets
code=$?

# 75: saved after a signal, nothing is wrong (the exit code of experiments.train). srun reports the
# highest code of all processes. Any other code is an error to look at, and is not tried again.
if [ "$code" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"

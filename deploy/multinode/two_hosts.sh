#!/bin/sh
# One recipe's training on two machines. Run it on both at about the same time, with the machine's number:
#
#   HEAD=gpu-a.example deploy/multinode/two_hosts.sh 0 RECIPE     on gpu-a, which the other must reach on port 29500
#   HEAD=gpu-a.example deploy/multinode/two_hosts.sh 1 RECIPE     on gpu-b
#
# A model that one GPU cannot hold is held by all of them together if the recipe says devices: {processes: 16, shard: true}.
# Afterwards, on either: tunegate run RECIPE, which finds the adapter and goes on with merging.
# TUNEGATE_HOME is a disk that both share, under the same path. The ports between the machines carry weights and orders unencrypted and
# believe whoever reaches them: keep them on a network of their own.
set -eu
NODE=$1 RECIPE=$2
: "${HEAD:?the name of the first machine}" "${TUNEGATE_HOME:?a folder that both machines share}"
cd "$(dirname "$0")/../.."
exec .venv/bin/torchrun --nnodes 2 --nproc-per-node "${PROCESSES:-8}" --node-rank "$NODE" \
    --master-addr "$HEAD" --master-port 29500 --max-restarts 0 -m flows.train_ranks "$RECIPE"

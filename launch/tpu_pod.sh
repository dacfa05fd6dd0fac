#!/usr/bin/env bash
# Trains on a Cloud TPU slice of any number of hosts: makes it, copies this checkout there, runs it on all workers.
#
#     launch/tpu_pod.sh create --name=alexnet --zone=us-west4-a --type=v5litepod-16 [--spot] [--runtime=VERSION]
#     launch/tpu_pod.sh status --name=alexnet --zone=us-west4-a
#     launch/tpu_pod.sh copy   --name=alexnet --zone=us-west4-a
#     launch/tpu_pod.sh run    --name=alexnet --zone=us-west4-a --shared=/mnt/alexnet -- \
#         --config=configs/two_device.py:imagenet2012 --config.mesh=8,2 --workdir=runs/imagenet
#     launch/tpu_pod.sh logs   --name=alexnet --zone=us-west4-a [--worker=0]
#     launch/tpu_pod.sh stop   --name=alexnet --zone=us-west4-a
#     launch/tpu_pod.sh delete --name=alexnet --zone=us-west4-a
#
# create  asks for a queued resource; it is there when status says ACTIVE, in minutes or days
# copy    copies what is committed, and builds the container (Dockerfile, EXTRA=tpu) on every worker
# run     starts the container on every worker. Everything after -- is for alexnet_jax.main; --shared is a folder that
#         all workers see at the same place (Filestore over NFS, or a bucket by gcsfuse), with data/ and runs/ in it
# logs    follows one worker's log; process 0 speaks for all
# stop    tells all workers to save and leave; run goes on from there
# delete  deletes the queued resource and its machines
#
# --project=ID if it is not gcloud's own; --dry_run prints the commands of gcloud instead of running them.
#
# Needs: gcloud, signed in, and quota for the slice in that zone. Costs: every chip from ACTIVE until delete, whether
# anything runs or not (cloud.google.com/tpu/pricing); --spot is cheaper and may be taken away at any time, after which
# delete, create, copy and the same run go on from the last checkpoint. To stop paying: delete.
set -euo pipefail

usage() {
    sed -n '2,/^set -euo/{s/^# \{0,1\}//p}' "$0"
}

fail() {
    echo "error: $1" >&2
    exit 1
}

gcloud_run() {
    if [ "$dry_run" = yes ]; then
        printf '%q ' gcloud "$@"
        echo
    else
        gcloud "$@"
    fi
}

on_workers() { # WORKER COMMAND
    gcloud_run compute tpus tpu-vm ssh "$name" "${place[@]}" --worker="$1" --command="$2"
}

command=${1:-}
case "$command" in
    create | status | copy | run | logs | stop | delete) shift ;;
    -h | --help | help) usage && exit 0 ;;
    *) fail "${command:-nothing} is not one of create, status, copy, run, logs, stop, delete: $0 --help" ;;
esac
name='' zone='' project='' type=v5litepod-16 runtime='' shared='' worker=0 dry_run=no
spot=()
while [ $# -gt 0 ]; do
    case "$1" in
        --name=*) name=${1#*=} ;;
        --zone=*) zone=${1#*=} ;;
        --project=*) project=${1#*=} ;;
        --type=*) type=${1#*=} ;;
        --runtime=*) runtime=${1#*=} ;;
        --shared=*) shared=${1#*=} ;;
        --worker=*) worker=${1#*=} ;;
        --spot) spot=(--spot) ;;
        --dry_run) dry_run=yes ;;
        -h | --help) usage && exit 0 ;;
        --) shift && break ;;
        *) fail "$1 is unknown: $0 --help" ;;
    esac
    shift
done
[ -n "$name" ] && [ -n "$zone" ] || fail "--name and --zone are needed: $0 --help"
place=(--zone="$zone")
[ -z "$project" ] || place+=(--project="$project")

case "$command" in
    create)
        if [ -z "$runtime" ]; then
            case "$type" in
                v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
                v5p-*) runtime=v2-alpha-tpuv5 ;;
                v6e-*) runtime=v2-alpha-tpuv6e ;;
                *) runtime=tpu-ubuntu2204-base ;;
            esac
        fi
        gcloud_run compute tpus queued-resources create "$name" --node-id="$name" "${place[@]}" \
            --accelerator-type="$type" --runtime-version="$runtime" ${spot[@]+"${spot[@]}"}
        ;;
    status)
        gcloud_run compute tpus queued-resources describe "$name" "${place[@]}" --format='value(state.state)'
        ;;
    copy)
        cd "$(dirname "$0")/.."
        archive=$(mktemp -d)/alexnet_jax.tar.gz
        trap 'rm -r "$(dirname "$archive")"' EXIT
        git archive --format=tar.gz --output="$archive" HEAD
        gcloud_run compute tpus tpu-vm scp "$archive" "$name:alexnet_jax.tar.gz" "${place[@]}" --worker=all
        on_workers all "rm -rf alexnet_jax && mkdir alexnet_jax && tar -xzf alexnet_jax.tar.gz -C alexnet_jax && \
sudo docker build --build-arg EXTRA=tpu --tag alexnet-jax:tpu alexnet_jax"
        ;;
    run)
        [ -n "$shared" ] || fail "--shared is needed, a folder that all workers see: $0 --help"
        [ $# -gt 0 ] || fail 'nothing to run: put the options of alexnet_jax.main after --'
        # As root, to whom the TPU's device files belong. Docker starts a container again that did not leave with 0, a
        # few times, but not one that was told to stop. The old container goes first, if it has ended.
        on_workers all "sudo docker rm alexnet 2>/dev/null; \
sudo docker run --detach --name=alexnet --restart=on-failure:10 --privileged --network=host --user=root \
--volume=$(printf %q "$shared")/data:/app/data --volume=$(printf %q "$shared")/runs:/app/runs \
alexnet-jax:tpu --cluster=tpu $(printf '%q ' "$@")"
        ;;
    logs)
        on_workers "$worker" 'sudo docker logs --follow --tail=100 alexnet'
        ;;
    stop)
        on_workers all 'sudo docker stop --time=120 alexnet'
        ;;
    delete)
        gcloud_run compute tpus queued-resources delete "$name" "${place[@]}" --force --quiet
        ;;
esac

#!/usr/bin/env bash
# absl-py 2.5.0 with SLURM 22.05.8 (Debian 12), ProctrackType=proctrack/linuxproc: a program that sets sys.argv[0] to two
# words, as command lines with verbs do ("tool verb"), is not signalled by scancel; with one word it is.
#
# Guess: sys.argv[0] is only text for the usage message, and SIGTERM of scancel reaches every process of a step.
# Seen: absl.app.run gives the kernel the base name of sys.argv[0] as the process's name (prctl PR_SET_NAME); /proc/PID/stat
#       then reads "123 (tool verb) S ...", and linuxproc, which takes the fields apart at spaces, does not find the
#       process among the step's: no SIGTERM, so it saves nothing when its job is cancelled, requeued or out of time.
# What to do: keep spaces out of sys.argv[0] where absl.app.run follows.
#
# Needs Debian 12 or another system where apt-get download finds these packages; no root.
set -euo pipefail
folder=$(mktemp -d)
stop() {
    kill $(jobs -p) 2>/dev/null || true
    sleep 2
    rm -rf "$folder"
}
trap stop EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check absl-py==2.5.0
cd "$folder"
cat >app.py <<'PYTHON'
import os
import pathlib
import signal
import sys
import time

from absl import app


def main(_):
    signal.signal(signal.SIGTERM, lambda *_: pathlib.Path('signalled').touch())
    pathlib.Path('app').write_text(str(os.getpid()))
    time.sleep(20)


sys.argv = sys.argv[1:]
app.run(main)
PYTHON
apt-get download slurm-client slurmctld slurmd slurm-wlm-basic-plugins >/dev/null 2>&1
for package in *.deb; do dpkg-deb --extract "$package" .; done
ls slurmd_22.05.8-* >/dev/null
mkdir state spool
read -r one two < <(python3 -c 'import socket
ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(port.getsockname()[1] for port in ports))')
cat >slurm.conf <<CONFIGURATION
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$one
SlurmdPort=$two
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/none
CredType=cred/none
PluginDir=$folder/usr/lib/x86_64-linux-gnu/slurm-wlm
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
NodeName=localhost NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=localhost Default=YES MaxTime=INFINITE State=UP
CONFIGURATION
export SLURM_CONF=$folder/slurm.conf LD_LIBRARY_PATH=$folder/usr/lib/x86_64-linux-gnu/slurm-wlm PATH=$folder/usr/bin:$PATH
usr/sbin/slurmctld-wlm -D >slurmctld.log 2>&1 &
usr/sbin/slurmd-wlm -D -d "$folder/usr/sbin/slurmstepd-wlm" >slurmd.log 2>&1 &
until [ "$(sinfo -h -o %T 2>/dev/null)" = idle ]; do sleep 0.5; done

# Runs the program under a name and cancels its job; prints whether the signal came within eight seconds.
try() {
    rm -f app signalled
    sbatch --quiet --output=job.log --wrap "srun $folder/venv/bin/python $folder/app.py '$1'" >job
    until [ -e app ]; do sleep 0.2; done
    sleep 1
    scancel --user="$(id -un)"
    sleep 8
    if [ -e signalled ]; then echo "$1: signalled"; else echo "$1: not signalled"; fi
    kill -KILL "$(cat app)" 2>/dev/null || true
    sleep 2
}
first=$(try tool-verb)
second=$(try 'tool verb')
printf '%s\n' "$first" "$second"
[ "$first" = 'tool-verb: signalled' ] && [ "$second" = 'tool verb: not signalled' ]
echo 'unchanged: SLURM does not signal a process that absl has named by two words'

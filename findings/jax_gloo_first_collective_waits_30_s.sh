#!/usr/bin/env bash
# jaxlib 0.10.2, CPU: the first collective between processes fails where one of them comes to it 30 s after the others.
#
# Guess: processes of one run wait for each other at a collective, for as long as jax.distributed's own timeouts say
#        (initialization_timeout=300, a heartbeat of 100 s); one that compiles for longer holds the others up, no more.
# Seen: Gloo makes its context at the first collective and waits 30 s for it, which no option of JAX changes:
#       "Gloo context initialization failed: DEADLINE_EXCEEDED". Later collectives wait. A run that starts well with a warm
#       compilation cache on all hosts fails where one host has a cold one.
# What to do: meet through the key-value store (which waits as long as it is told) before the first collective.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
cat >late.py <<'PYTHON'
import sys
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

process, port, late = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
jax.distributed.initialize(f'localhost:{port}', num_processes=2, process_id=process, initialization_timeout=300)
jax.devices()
if process == 1:
    time.sleep(late)
try:
    print(multihost_utils.process_allgather(np.ones(1)).sum(), flush=True)
    if process == 1:
        time.sleep(late)  # late again, for a collective that is not the first
    print(multihost_utils.process_allgather(np.ones(1)).sum(), flush=True)
except Exception as error:
    print(str(error).splitlines()[0][:120], flush=True)
PYTHON
run() {
    local port
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
    JAX_PLATFORMS=cpu timeout 150 "$folder/venv/bin/python" late.py 1 "$port" "$1" >one 2>/dev/null &
    JAX_PLATFORMS=cpu timeout 150 "$folder/venv/bin/python" late.py 0 "$port" "$1" >zero 2>/dev/null || true
    wait || true
}
run 20
echo "20 s late, twice: $(tr '\n' ' ' <zero)"
[ "$(tr '\n' ' ' <zero)" = '2.0 2.0 ' ]
run 45
echo "45 s late: $(cat zero)"
grep -q 'Gloo context initialization failed: DEADLINE_EXCEEDED' zero
echo 'unchanged: the first collective of CPU processes waits 30 s in jaxlib 0.10.2'

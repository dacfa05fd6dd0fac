#!/usr/bin/env bash
# Orbax 0.12.8: one checkpoint whose metric is NaN makes CheckpointManager delete the best of all others.
#
# Guess: with best_fn and best_mode='min', NaN ranks last, or saving it is refused; the smallest error is kept.
# Seen: BestN sorts by the metric, and NaN compares false with everything, so the order of the rest is whatever the sort
#       makes of it. Errors 0.1, NaN, 0.4, 0.3 with "keep the best one and the latest two": 0.1 is deleted, and
#       best_step() names the newest. With max_to_keep=2 and no policy 0.5 is deleted and 0.6 called the best.
# What to do: give Orbax a metric only where it is finite.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check orbax-checkpoint==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import logging
import math
import tempfile

import numpy as np
import orbax.checkpoint as ocp

logging.disable(logging.ERROR)
managers = ocp.checkpoint_managers


def keep(errors, **options):
    options = ocp.CheckpointManagerOptions(best_fn=lambda metrics: metrics['error'], best_mode='min', **options)
    with ocp.CheckpointManager(tempfile.mkdtemp(), options=options) as manager:
        for step, error in enumerate(errors, start=1):
            manager.save(step, args=ocp.args.StandardSave({'x': np.arange(3.0)}), metrics={'error': error})
        manager.wait_until_finished()
        found = sorted(manager.all_steps()), manager.best_step()
    print(errors, 'kept', found[0], 'best', found[1])
    return found


policy = managers.AnyPreservationPolicy(
    [managers.LatestN(2), managers.BestN(get_metric_fn=lambda metrics: metrics['error'], reverse=True, n=1)]
)
assert keep([0.1, 0.5, 0.4, 0.3], preservation_policy=policy) == ([1, 3, 4], 1)  # as one would expect
assert keep([0.1, math.nan, 0.4, 0.3], preservation_policy=policy) == ([3, 4], 4)  # the best, 0.1, is gone
assert keep([0.5, math.nan, 0.6, 0.7], max_to_keep=2) == ([3, 4], 3)  # the best, 0.5, is gone
PYTHON
echo 'unchanged: a NaN metric makes Orbax 0.12.8 delete the best checkpoint'

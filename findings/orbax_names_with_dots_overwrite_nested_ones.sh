#!/usr/bin/env bash
# Orbax 0.12.8: of two arrays whose names, joined with dots, are the same, one is saved, and both are restored from it.
#
# Guess: a tree of arrays comes back as it was saved, or a name that cannot be stored is refused.
# Seen: an array is stored under the keys of its path joined with dots, and nothing escapes a dot in a key. {'conv1.kernel': a,
#       'conv1': {'kernel': b}} is restored with both names and one array in both places; which one wins differs from run to
#       run. The tree's own metadata is right, so a restore into a target of the same structure passes as well. It takes
#       names of another library beside nested ones: a table of statistics or of PyTorch's weights, {'features.0': ...}
#       beside {'features': [...]}. A slash in a name is safe.
# What to do: replace dots in keys before saving, and restore once and compare after a change of the tree.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check orbax-checkpoint==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" -W ignore - <<'PYTHON'
import logging
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

logging.disable(logging.CRITICAL)
checkpointer = ocp.StandardCheckpointer()


def save_and_restore(name, tree, with_target):
    path = pathlib.Path(name).resolve()
    checkpointer.save(path, tree)
    checkpointer.wait_until_finished()
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree) if with_target else None
    restored = checkpointer.restore(path, target)
    assert jax.tree.structure(restored) == jax.tree.structure(tree)
    found = [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(restored)]
    print(name, list(zip((jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(restored)), found)))
    return found


one, two, three = jnp.full(2, 1.0), jnp.full(2, 2.0), jnp.full(2, 3.0)
for with_target in (False, True):
    nested, dotted = save_and_restore(f'kernel_{with_target}', {'conv1': {'kernel': two}, 'conv1.kernel': one}, with_target)
    assert nested == dotted and nested in ([1, 1], [2, 2])
    tree = {'features': [two, three], 'features.0': one}
    nested, untouched, dotted = save_and_restore(f'features_{with_target}', tree, with_target)
    assert nested == dotted and nested in ([1, 1], [2, 2]) and untouched == [3, 3]
assert save_and_restore('slash', {'conv1': {'kernel': two}, 'conv1/kernel': one}, True) == [[2, 2], [1, 1]]
checkpointer.close()
PYTHON
echo 'unchanged: Orbax 0.12.8 saves one of two arrays whose names differ in a dot alone'

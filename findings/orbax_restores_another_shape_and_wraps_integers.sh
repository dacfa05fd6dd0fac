#!/usr/bin/env bash
# Orbax 0.12.8: a restore that is told the shape and dtype of each array checks no shape of NumPy's arrays, and fits integers
# into the dtype it was told by dropping their high bits.
#
# Guess: StandardCheckpointer.restore(path, target) raises where a shape is another ("Truncating/padding is disabled"), whatever
#        the kind of array, and where a value does not fit.
# Seen: it raises for jax.Array alone. A target of np.zeros((10,)) gets the 1,000 values that were saved, and so does a
#       jax.ShapeDtypeStruct of 10 where NumPy had saved them: the same code, run from a training state on the host, takes the
#       checkpoint of another network. 5,000,000,000 images seen, or a seed of 64 bits, saved by NumPy as int64, are
#       705,032,704 for a target in int32, which is what jax.eval_shape says in a process without jax_enable_x64. No warning.
# What to do: compare the target with the shapes and dtypes of checkpointer.metadata(path) before the restore.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check orbax-checkpoint==0.12.8 jax==0.10.2 \
    jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" -W error::UserWarning - <<'PYTHON'
import logging
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

messages = []
handler = logging.Handler(logging.WARNING)
handler.emit = lambda record: messages.append(record.getMessage())
logging.getLogger().handlers = logging.getLogger('absl').handlers = [handler]
checkpointer = ocp.StandardCheckpointer()


def save(name, array):
    checkpointer.save(pathlib.Path(name).resolve(), {'leaf': array})
    checkpointer.wait_until_finished()


def restore(name, target):
    messages.clear()
    try:
        found = checkpointer.restore(pathlib.Path(name).resolve(), {'leaf': target})['leaf']
    except ValueError as error:
        print(name, 'into', type(target).__name__, target.shape, target.dtype, '->', str(error).split('. ')[0])
        return None
    print(name, 'into', type(target).__name__, target.shape, target.dtype, '->', found.shape, found.dtype, found.ravel()[:1])
    return found


save('numpy', np.ones(1000, np.float32))
save('jax', jnp.ones(1000))
abstract = jax.ShapeDtypeStruct((10,), np.float32)
for name in ('numpy', 'jax'):
    assert restore(name, jnp.zeros(10)) is None
    assert restore(name, np.zeros(10, np.float32)).shape == (1000,)
assert restore('jax', abstract) is None
assert restore('numpy', abstract).shape == (1000,)

save('seen', np.array([5_000_000_000]))
state = jax.eval_shape(lambda: {'seen': jnp.zeros(1, int)})
found = restore('seen', state['seen'])
assert found.dtype == np.int32 and found.tolist() == [705_032_704]
said = list(messages)
save('few', np.array([5]))
assert restore('few', state['seen']).tolist() == [5] and said == messages  # nothing is logged for the large number alone
saved = checkpointer.metadata(pathlib.Path('seen').resolve()).item_metadata['leaf']
assert (saved.shape, saved.dtype) == ((1,), np.int64)
PYTHON
echo 'unchanged: Orbax 0.12.8 checks no shapes of arrays of NumPy and wraps integers'

"""Where checkpoints are kept: Orbax writes and reads arrays, and beside them the manifest.

The only file that imports orbax.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import logging
import os
import pathlib
import sys
import warnings
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from alexnet_jax.checkpoints.hashes import hash_array, iter_pieces
from alexnet_jax.checkpoints.manifest import MANIFEST, NON_FINITE, DamagedError, Manifest
from alexnet_jax.distributed.hosts import allgather_str

TEMPORARY = '.orbax-checkpoint-tmp'  # in the names of folders that are being written


class AsyncWriter:
    """Writes one checkpoint at a time in the background, all processes together."""

    def __init__(self) -> None:
        # What a disk refuses is raised by `wait` too, as one line; Orbax would print its stack besides.
        logging.getLogger('absl').addFilter(_no_stack_of_a_save)
        self._orbax = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(state=ocp.StandardCheckpointHandler(), hashes=_ManifestHandler()),
            # Else Orbax gives up on a slow disk; a lost peer is found by distributed.watchdog.
            async_options=ocp.AsyncOptions(timeout_secs=24 * 3600),
        )

    def begin(self, path: pathlib.Path, tree: Any, manifest: Manifest) -> None:
        """Copies `tree` and begins to write it, and `manifest` with the hashes of its pieces, to `path`.

        The folder gets its name when everything is in it. What the disk refuses is raised here or by `wait`.
        """
        items = ocp.args.Composite(state=ocp.args.StandardSave(tree), hashes=_ManifestArgs(manifest, tree))
        self._orbax.save(path, args=items)

    def wait(self) -> None:
        """Until what was begun is there; raises what it could not do."""
        self._orbax.wait_until_finished()

    def close(self) -> None:
        """Ends its threads."""
        self._orbax.close()


def read_arrays(path: pathlib.Path, target: Any) -> Any:
    """The arrays of a checkpoint; each process reads for itself, so that one that fails leaves no other waiting."""
    own = jax.process_index()
    alone = ocp.options.MultiprocessingOptions()
    if jax.process_count() > 1:
        alone = ocp.options.MultiprocessingOptions(own, {own}, f'process{own}')
    hooks = _silence_abandoned_reads()
    try:
        handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
            restored = reader.restore(path / 'state', args=ocp.args.StandardRestore(target))
        sys.unraisablehook, sys.excepthook = hooks
        return restored
    except Exception as error:  # Orbax documents no class of its own for damaged files
        raise DamagedError(f'cannot be read: {get_first_line(error)}') from error


def read_shapes(path: pathlib.Path) -> Any:
    """The tree of a checkpoint's shapes and dtypes, as jax.ShapeDtypeStruct, as Orbax wrote them down."""
    try:
        tree = ocp.StandardCheckpointHandler().metadata(path / 'state').tree
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
    except Exception as error:  # as in `_read`
        raise DamagedError(f'its metadata cannot be read: {get_first_line(error)}') from error


def get_first_line(error: Exception) -> str:
    """What an error of a library says, as one line."""
    return (str(error).splitlines() or [repr(error)])[0][:200]


class _ManifestHandler(ocp.AsyncCheckpointHandler):
    """Writes the manifest beside Orbax's arrays, before the whole becomes a checkpoint by being renamed."""

    async def async_save(self, directory: Any, args: _ManifestArgs) -> list[Any]:
        # Copies, because the state is donated to the next step; what takes longer, hashing them, is for later.
        held = [(name, np.array(value)) for name, value in iter_pieces(args.tree, every_copy=False)]

        async def write() -> None:
            own = {name: hash_array(value) if np.isfinite(value).all() else NON_FINITE for name, value in held}
            words = allgather_str('manifest', json.dumps(own))
            if jax.process_index() == 0:
                every = {name: found for word in words for name, found in json.loads(word).items()}
                text = dataclasses.replace(args.manifest, pieces=every).text()
                path = pathlib.Path(os.fspath(directory)) / MANIFEST.name
                path.write_text(text)

        return [ocp.future.CommitFutureAwaitingContractedSignals(write(), name='manifest')]

    def save(self, directory: Any, args: _ManifestArgs) -> None:
        raise NotImplementedError('saved in the background only')

    def restore(self, directory: Any, args: Any = None) -> None:
        raise NotImplementedError('see read_manifest')


@ocp.args.register_with_handler(_ManifestHandler, for_save=True, for_restore=True)
@dataclasses.dataclass
class _ManifestArgs(ocp.args.CheckpointArgs):
    manifest: Manifest
    tree: Any


def _no_stack_of_a_save(record: logging.LogRecord) -> bool:
    stacks = ('_SignalingThread.run() raised an exception', 'callback in background save thread')
    return not any(stack in record.getMessage() for stack in stacks)


def _silence_abandoned_reads() -> tuple[Any, Any]:
    """Keeps the one line that says what is wrong from being followed by pages; returns the hooks that were there.

    When a read fails, Orbax leaves the reads of other leaves that it had begun. Each complains of the loop that it
    wants to tell of its end and that is closed, from a thread of C++, or when Python frees it, at the latest when the
    process ends.
    """
    hooks = sys.unraisablehook, sys.excepthook

    def of_others(unraisable: Any) -> None:
        read = inspect.iscoroutine(unraisable.object) and 'orbax' in unraisable.object.cr_code.co_filename
        if not read and str(unraisable.exc_value) != 'Event loop is closed':
            hooks[0](unraisable)

    def not_of_closed_loops(kind: Any, error: Any, trace: Any) -> None:
        if str(error) != 'Event loop is closed':
            hooks[1](kind, error, trace)

    sys.unraisablehook, sys.excepthook = of_others, not_of_closed_loops
    warnings.filterwarnings('ignore', message=r"coroutine '_read_array\w*' was never awaited")
    logging.getLogger('asyncio').addFilter(lambda record: 'exception was never retrieved' not in record.getMessage())
    return hooks

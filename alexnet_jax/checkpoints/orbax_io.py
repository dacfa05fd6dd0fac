"""Writes checkpoints by Orbax, arrays with their manifest beside them, and reads them; alone imports orbax."""

from __future__ import annotations

import dataclasses
import inspect
import json
import logging
import pathlib
import sys
import warnings
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from alexnet_jax.checkpoints.hashes import hash_array, iter_pieces
from alexnet_jax.checkpoints.manifest import NON_FINITE, DamagedError, Manifest, read_manifest
from alexnet_jax.distributed.hosts import allgather_str
from alexnet_jax.errors import get_first_line

TEMPORARY = '.orbax-checkpoint-tmp'  # in the names of folders that are being written


class AsyncWriter(ocp.AsyncCheckpointer):
    """Writes one checkpoint at a time in the background, all processes together."""

    def __init__(self) -> None:
        # `wait_until_finished` raises what a disk refuses; Orbax would print its stack besides.
        logging.getLogger('absl').addFilter(_is_no_stack_of_save)
        super().__init__(
            ocp.CompositeCheckpointHandler(state=ocp.StandardCheckpointHandler(), hashes=_ManifestHandler()),
            # Else Orbax gives up on a slow disk; a lost peer is found by distributed.watchdog.
            async_options=ocp.AsyncOptions(timeout_secs=24 * 3600),
        )

    def begin(self, path: pathlib.Path, tree: Any, manifest: Manifest) -> None:
        """Copies `tree` and begins to write it, and `manifest` with the hashes of its pieces, to `path`.

        The folder gets its name when everything is in it. What the disk refuses is raised here or by
        `wait_until_finished`.
        """
        self.save(
            path, args=ocp.args.Composite(state=ocp.args.StandardSave(tree), hashes=_ManifestArgs(manifest, tree))
        )


def read_arrays(path: pathlib.Path, target: Any, manifest: Manifest) -> Any:
    """Reads the arrays of a checkpoint as `target`, of jax.ShapeDtypeStruct, says, and compares them with their hashes.

    Each process reads for itself, so that one that fails leaves no other waiting.

    Raises:
      DamagedError: they cannot be read, or are not what was saved.
    """
    own = jax.process_index()
    alone = ocp.options.MultiprocessingOptions()
    if jax.process_count() > 1:
        alone = ocp.options.MultiprocessingOptions(own, {own}, f'process{own}')
    hooks = _silence_abandoned_reads()
    try:
        handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
            tree = reader.restore(path / 'state', args=ocp.args.StandardRestore(target))
    except Exception as error:  # Orbax documents no class of its own for damaged files
        raise DamagedError(f'cannot be read: {get_first_line(error)}') from error
    sys.unraisablehook, sys.excepthook = hooks
    pieces = iter_pieces(tree, every_copy=True)
    if differing := sorted({name for name, value in pieces if manifest.pieces.get(name) != hash_array(value)}):
        raise DamagedError(f'{", ".join(differing)} not as saved')
    return tree


def load_arrays(path: pathlib.Path) -> dict[str, Any]:
    """Loads the arrays of a checkpoint on one device, whatever its network; `DamagedError` as `read_arrays`."""
    path = path.absolute()  # Orbax takes no other
    manifest = read_manifest(path)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    try:
        shapes = ocp.StandardCheckpointHandler().metadata(path / 'state').tree
        target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), shapes)
    except Exception as error:  # as in `read_arrays`
        raise DamagedError(f'its metadata cannot be read: {get_first_line(error)}') from error
    return read_arrays(path, target, manifest)


class _ManifestHandler(ocp.AsyncCheckpointHandler):
    """Writes the manifest beside Orbax's arrays, before the folder becomes a checkpoint by being renamed."""

    async def async_save(self, directory: Any, args: _ManifestArgs) -> list[Any]:
        # Copies, because the state is donated to the next step; what takes longer, hashing them, is for later.
        held = [(name, np.array(value)) for name, value in iter_pieces(args.tree, every_copy=False)]

        async def write() -> None:
            own = {name: hash_array(value) if np.isfinite(value).all() else NON_FINITE for name, value in held}
            gathered = allgather_str('manifest', json.dumps(own))
            if jax.process_index() == 0:
                pieces = {name: found for text in gathered for name, found in json.loads(text).items()}
                dataclasses.replace(args.manifest, pieces=pieces).write(pathlib.Path(directory))

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


def _is_no_stack_of_save(record: logging.LogRecord) -> bool:
    stacks = ('_SignalingThread.run() raised an exception', 'callback in background save thread')
    return not any(stack in record.getMessage() for stack in stacks)


def _silence_abandoned_reads() -> tuple[Any, Any]:
    """Silences the reads of other leaves that Orbax abandons when one fails; returns the hooks that were there.

    Each complains that the event loop it wants to tell of its end is closed, from a thread of C++ or when Python frees
    it, at the latest when the process ends: pages after the one line that says what is wrong.
    """
    hooks = sys.unraisablehook, sys.excepthook

    def report_unraisable(unraisable: Any) -> None:
        is_read = inspect.iscoroutine(unraisable.object) and 'orbax' in unraisable.object.cr_code.co_filename
        if not is_read and str(unraisable.exc_value) != 'Event loop is closed':
            hooks[0](unraisable)

    def report_exception(kind: Any, error: Any, trace: Any) -> None:
        if str(error) != 'Event loop is closed':
            hooks[1](kind, error, trace)

    sys.unraisablehook, sys.excepthook = report_unraisable, report_exception
    warnings.filterwarnings('ignore', message=r"coroutine '_read_array\w*' was never awaited")
    logging.getLogger('asyncio').addFilter(lambda record: 'exception was never retrieved' not in record.getMessage())
    return hooks

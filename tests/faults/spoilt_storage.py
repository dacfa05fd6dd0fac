"""Rows of the fault matrix: damaged checkpoints; disks that are full or read-only."""

import contextlib
import json
import os
import shutil
import subprocess
import time

from faults.rows import row


@row('one bit of the arrays of checkpoint 24 flips', pattern='state/d/*', tier='repeats')
@row('one bit of the arrays of checkpoint 24, as one process wrote them, flips', pattern='state/ocdbt.process_0/d/*')
@row('one bit of the index of checkpoint 24 flips', pattern='state/manifest.ocdbt')
@row('one bit of the description of checkpoint 24 flips', pattern='state/_METADATA')
@row('one bit of the sharding file of checkpoint 24 flips', pattern='state/_sharding')
@row('one bit of the types file of checkpoint 24 flips', pattern='state/array_metadatas/*')
@row('one bit of the manifest of checkpoint 24 flips', pattern='hashes/metadata')
@row('one bit of the step metadata of checkpoint 24 flips', pattern='_CHECKPOINT_METADATA')
def flipped(lab, *, pattern):
    path = damage(lab, pattern)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    return gone_on(lab)


@row('the arrays of checkpoint 24 are cut to half', pattern='state/d/*', tier='repeats')
@row('the manifest of checkpoint 24 is cut to half', pattern='hashes/metadata')
def truncated(lab, *, pattern):
    path = damage(lab, pattern)
    os.truncate(path, path.stat().st_size // 2)
    return gone_on(lab)


@row('the arrays of checkpoint 24 are deleted', pattern='state/d/*')
@row('the manifest of checkpoint 24 is deleted', pattern='hashes/metadata')
def deleted(lab, *, pattern):
    damage(lab, pattern).unlink()
    return gone_on(lab)


@row('the {pattern} of checkpoint 24 is deleted', pattern='commit_success.txt')
@row('the {pattern} of checkpoint 24 is deleted', pattern='state/commit_success.txt')
@row('the {pattern} of checkpoint 24 is deleted', pattern='hashes/commit_success.txt')
@row('each commit_success.txt of checkpoint 24 is deleted', pattern='**/commit_success.txt')
@row('each commit_success.txt of all checkpoints is deleted', pattern='../*/**/commit_success.txt')
def unmarked(lab, *, pattern):
    for path in [*damage(lab, 'state').parent.glob(pattern)]:
        path.unlink()
    ended = lab.resume()
    assert not (lab.workdir / 'damaged_checkpoints').exists()
    return ended.line('24/24', 'ten-view'), None, 'equal'


@row('the folder of checkpoint 24 is empty')
def emptied(lab):
    step = damage(lab, 'state').parent
    shutil.rmtree(step)
    step.mkdir()
    return gone_on(lab)


def damage(lab, pattern):
    """The largest file of that name in the last checkpoint of a copy of the undisturbed run, which is not finished."""
    shutil.copytree(lab.undisturbed, lab.workdir)
    (lab.workdir / 'result.json').unlink()
    return max((lab.workdir / 'checkpoints/24').glob(pattern), key=lambda path: path.stat().st_size)


def gone_on(lab):
    """Resumes; what a flip did not change, the arrays and the manifest being whole, may be used."""
    ended = lab.resume()
    if not (lab.workdir / 'damaged_checkpoints').exists():
        return 'nothing: no array is read from it', None, 'equal'
    return ended.line('warning: checkpoint 24 is damaged', 'goes on from step'), None, 'equal'


LOG_SOON = ('--config.checkpoint_every=8', '--config.log_every=1')  # its next page is wanted before checkpoint 16


@row('the disk is full before checkpoint 12', kept=[3, 4, 6, 8, 9])
@row('the disk is full for the log after step 10', kept=[4, 8], options=LOG_SOON)
def disk_full(lab, *, kept, options=()):
    with lab.small_disk(megabytes=80) as disk:
        process = lab.start(*options, fault={'moment': 'step', 'at': 10, 'do': 'sleep5'})
        lab.wait_for_fault()
        lab.wait_for_checkpoint(kept[-1])
        fill_up(disk / 'filler')
        ended = lab.end(process)
        assert ended.code == 1, ended.err
        line = ended.line('error: ')
        names = {path.name for path in (lab.workdir / 'checkpoints').iterdir()} - {'.writable0'}
        assert names == {str(step) for step in kept}
        (disk / 'filler').unlink()
        lab.resume(*options)
    return line, None, 'equal'


@row(
    'the disk is full before checkpoint 12 and has room again later, on_failed_save=continue',
    safe=9,
    sees=('WARNING: checkpoint not written', 'what is safe is step 9'),
    at=[10, 14],
    do='sleep8',
)
@row(
    'the disk is full for the log after step 10 and has room again later, on_failed_save=continue',
    safe=8,
    sees=('WARNING: ',),
    at=[10, 15],
    do='sleep5',
    options=LOG_SOON,
)
def disk_full_for_a_while(lab, *, safe, sees, at, do, options=()):
    with lab.small_disk(megabytes=80) as disk:
        process = lab.start(*options, '--config.on_failed_save=continue', fault={'moment': 'step', 'at': at, 'do': do})
        lab.wait_for_fault()
        lab.wait_for_checkpoint(safe)
        fill_up(disk / 'filler')
        deadline = time.monotonic() + 60
        while 'WARNING: ' not in lab.everything() and time.monotonic() < deadline:
            time.sleep(0.05)
        (disk / 'filler').unlink()
        ended = lab.end(process)
        assert ended.code == 0, ended.err
        lab.compare()
        steps = {json.loads(line)['step'] for line in (lab.workdir / 'metrics.jsonl').read_text().splitlines()}
        assert not options or steps == set(range(1, 25))  # what the disk did not take at first is there too
        line = ended.line(*sees)
    return line, None, 'equal'


@row('the disk of the run folder is read-only')
def read_only(lab):
    with lab.small_disk(megabytes=80) as disk:
        subprocess.run(['mount', '-o', 'remount,ro', str(disk)], check=True)
        ended = lab.run()
        assert ended.code == 1
        line = ended.line('error: cannot write to', 'choose another --workdir')
        subprocess.run(['mount', '-o', 'remount,rw', str(disk)], check=True)
        lab.resume()
    return line, None, 'refused'


def fill_up(path):
    with path.open('wb', buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(2**12))

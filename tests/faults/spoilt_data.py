"""Rows of the fault matrix: damaged datasets, and preparing one that is interrupted."""

import shutil
import signal
import subprocess
import time

from faults.rows import row


@row('a shard is deleted in step 10')
def shard_deleted(lab):
    lab.own_data()
    process = lab.start(fault={'moment': 'step', 'at': 10, 'do': 'sleep5'})
    lab.wait_for_fault()
    shard = lab.shard()
    aside = shard.rename(lab.folder / 'shard')
    ended = lab.end(process)
    if ended.code == 0:  # the system keeps an open file
        lab.compare()
        return 'nothing: the open file stays readable', None, 'equal'
    aside.rename(shard)
    lab.resume()
    return ended.line('error: '), ended.seconds, 'equal'


@row('one bit of a shard flips in step 10')
def shard_flipped_in_training(lab):
    lab.own_data()
    process = lab.start(fault={'moment': 'step', 'at': 10, 'do': 'sleep5'})
    lab.wait_for_fault()
    shard = lab.shard()
    whole = shard.read_bytes()
    with shard.open('r+b') as file:  # in place: the run has this file open
        file.seek(len(whole) // 2)
        file.write(bytes([whole[len(whole) // 2] ^ 4]))
    ended = lab.end(process)
    assert ended.code == 1, lab.everything()
    line = ended.line('error: dataset tiny', 'cannot be read')
    shard.write_bytes(whole)
    lab.resume()
    return line, ended.seconds, 'equal'


@row('one bit of a shard flips before the start', tier='repeats')
def shard_flipped(lab):
    lab.own_data()
    shard = lab.shard()
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 4
    shard.write_bytes(data)
    ended = lab.run()
    assert ended.code == 1, ended.err
    return ended.line('error: '), None, 'refused'


@row('a shard is missing at the start')
def shard_missing(lab):
    lab.own_data()
    lab.shard().unlink()
    ended = lab.run()
    assert ended.code == 1
    return ended.line('error: ', 'prepare it again'), None, 'refused'


@row('a JPEG of the training split is no JPEG')
def corrupt_jpeg(lab):
    lab.own_data()
    lab.spoil_jpeg()
    ended = lab.run()
    assert ended.code == 1, ended.err
    return ended.line('error: record ', 'is no image that can be decoded'), None, 'refused'


@row('kill -9 while a dataset is prepared')
def killed_preparing(lab):
    images = lab.folder_of_images()
    expected = lab.prepare(*images, into='straight')
    process = lab.start_preparing(*images, into='killed')
    partial = lab.folder / 'killed/.photos.partial'
    while not list(partial.glob('**/*array_record*')) and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (lab.folder / 'killed/photos').exists()
    assert lab.prepare(*images, into='killed') == expected
    return 'nothing: the same command goes on', None, 'equal'


@row('kill -9 while a dataset is rewritten as raw records')
def killed_rewriting(lab):
    options, name = ('--from=photos', '--encoding=raw'), 'photos_raw'
    source = lab.prepare(*lab.folder_of_images(), into='straight')
    shutil.copytree(lab.folder / 'straight/photos', lab.folder / 'killed/photos')
    expected = lab.prepare(*options, into='straight', name=name)
    assert source['statistics.npz'] == expected['statistics.npz']
    process = lab.start_preparing(*options, into='killed')
    partial = lab.folder / 'killed/.photos_raw.partial'
    while not list(partial.glob('shards/validation*')) and process.poll() is None:  # the training records are there
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (lab.folder / 'killed' / name).exists()
    written = (partial / 'shards/train-00000').stat()
    assert lab.prepare(*options, into='killed', name=name) == expected
    (shard,) = (lab.folder / 'killed' / name).rglob('train-*.npy')
    assert (shard.stat().st_ino, shard.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)  # not made again
    return 'nothing: the same command goes on', None, 'equal'


@row('the disk is full while a dataset is prepared')
def disk_full_preparing(lab):
    images = lab.folder_of_images()
    expected = lab.prepare(*images, into='straight')
    with lab.small_disk(megabytes=3) as disk:
        ended = lab.end(lab.start_preparing(*images, into=disk))
        assert ended.code == 1, ended.err
        line = ended.line('error: ')
        assert not (disk / 'photos').exists()
        subprocess.run(['mount', '-o', 'remount,size=80m', str(disk)], check=True)
        assert lab.prepare(*images, into=disk) == expected
    return line, ended.seconds or None, 'equal'

"""The files that a run's numbers go to, on a disk that is full for a while."""

import errno
import io
import json
import os
import pathlib

import pytest

from alexnet_jax.errors import InputError
from alexnet_jax.logs.writers import JsonlWriter, MetricWriter, TensorBoardWriter


@pytest.fixture
def disk(monkeypatch):
    """Room for so many more bytes in files written by descriptor; None: enough."""
    room, write = {'left': None}, os.write

    def limited(descriptor, data):
        if room['left'] is None:
            return write(descriptor, data)
        if not room['left']:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(descriptor, data[: room['left']])
        room['left'] -= written
        return written

    monkeypatch.setattr(os, 'write', limited)
    return room


def lines(path):
    return [json.loads(line)['step'] for line in path.read_text().splitlines()]


def test_jsonl_writer_keeps_a_line_that_has_no_room_and_writes_it_first_when_there_is(disk, tmp_path):
    file = JsonlWriter(tmp_path / 'metrics.jsonl', until=0)
    file.write({'step': 1, 'split': 'train'})
    for room in (0, 5):  # none, and some for a part
        disk['left'] = room
        with pytest.raises(OSError, match='No space left'):
            file.write({'step': 2 + room, 'split': 'train'})
        assert lines(tmp_path / 'metrics.jsonl') == [1]
    disk['left'] = None
    file.write({'step': 9, 'split': 'train'})
    file.close()
    assert lines(tmp_path / 'metrics.jsonl') == [1, 2, 7, 9]


def test_metric_writer_stops_on_a_full_disk_in_one_line(disk, tmp_path):
    records = MetricWriter(tmp_path, until=0, patient=False, info=print)
    disk['left'] = 0
    with pytest.raises(InputError, match=r'cannot write .*/metrics\.jsonl: No space left on device'):
        records.write(1, 'train', {'loss': 2.0})


def test_patient_metric_writer_says_so_once_until_it_works_again(disk, tmp_path):
    printed = []
    records = MetricWriter(tmp_path, until=0, patient=True, info=printed.append)
    for step, room in enumerate([None, 0, 0, None, 0], start=1):
        disk['left'] = room
        records.write(step, 'train', {'loss': 2.0})
    disk['left'] = None
    assert len(printed) == 2
    assert printed[0].endswith('metrics.jsonl: No space left on device; its lines are kept and tried again')
    assert lines(tmp_path / 'metrics.jsonl') == [1, 2, 3, 4]


def test_metric_writer_writes_nothing_twice_and_drops_what_is_later(tmp_path):
    for until in (0, 2):
        records = MetricWriter(tmp_path, until=until, patient=False, info=print)
        for step in (1, 2, 3):
            records.write(step, 'train', {'loss': float(until)})
        records.write(3, 'validation', {'protocol': 'centre', 'loss': 1.0})
        records.close()
    found = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    assert [(line['step'], line['split'], line['loss']) for line in found] == [
        (1, 'train', 0.0), (2, 'train', 0.0), (3, 'train', 2.0), (3, 'validation', 1.0),
    ]  # fmt: skip


def test_metric_writer_killed_while_it_drops_later_lines_loses_none(tmp_path, monkeypatch):
    class Half(io.FileIO):
        def write(self, data):
            super().write(data[: len(data) // 2])
            raise KeyboardInterrupt

    def killed_in_write(path, mode='r', **options):
        return Half(path, mode) if mode == 'wb' else path_open(path, mode, **options)

    def killed_in_replace(*_):
        raise KeyboardInterrupt

    path_open = pathlib.Path.open
    records = MetricWriter(tmp_path, until=0, patient=False, info=print)
    for step in (1, 2, 3):
        records.write(step, 'train', {'loss': 2.0})
    records.close()
    for method, killed in (('open', killed_in_write), ('replace', killed_in_replace)):
        monkeypatch.setattr(pathlib.Path, method, killed)
        with pytest.raises(KeyboardInterrupt):
            MetricWriter(tmp_path, until=2, patient=False, info=print)
        monkeypatch.undo()
        assert lines(tmp_path / 'metrics.jsonl') == [1, 2, 3]


def test_tensorboard_writer_is_read_back_by_tensorboardx_messages(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    board = TensorBoardWriter(tmp_path, purge_step=3)
    board.write(3, 'train', {'loss': 1.5, 'protocol': 'centre', 'error': 0})
    board.close()
    data, events = next(tmp_path.iterdir()).read_bytes(), []
    while data:  # records of the TFRecord format: length, its checksum, bytes, their checksum
        length = int.from_bytes(data[:8], 'little')
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[12 + length + 4 :]
    assert events[0].file_version == 'brain.Event:2'
    assert [event.step for event in events[1:]] == [3, 3, 3, 3]
    assert events[2].session_log.status == 1  # START: what other files say from this step on is void
    values = {value.tag: value.simple_value for event in events for value in event.summary.value}
    assert values == {'train/loss': 1.5, 'train/error': 0.0}

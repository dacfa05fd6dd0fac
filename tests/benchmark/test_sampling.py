"""Samples of programs whose time, memory and noise are known."""

import multiprocessing
import pathlib
import sys
import time
import types

import pytest

from alexnet_jax.benchmark import sampling
from alexnet_jax.benchmark.sampling import Program

linux = pytest.mark.skipif(not sys.platform.startswith('linux'), reason='reads /proc')


def set_clocks(monkeypatch, *, wall, own, busy):
    """Makes the clocks show the given values, one after the other, on a machine with two cores."""
    fake = types.SimpleNamespace(perf_counter=iter(wall).__next__, process_time=iter(own).__next__)
    monkeypatch.setattr(sampling, 'time', fake)
    monkeypatch.setattr(sampling, '_get_busy_seconds', iter(busy).__next__)
    monkeypatch.setattr(sampling.os, 'cpu_count', lambda: 2)


def test_take_sample_calls_until_the_time_has_passed(monkeypatch):
    # Started at 10; looked at after each call, at 13, 16, 19; read at the end.
    set_clocks(monkeypatch, wall=[10.0, 13.0, 16.0, 19.0, 19.0], own=[1.0, 7.0], busy=[100.0, 115.0])
    calls = []
    sample = sampling.take_sample(Program(lambda: calls.append(1)), seconds=7)
    assert (sample.calls, len(calls)) == (3, 3)
    assert sample.seconds == 3.0
    assert sample.cpu_seconds == 2.0
    assert sample.foreign == 0.5  # the cores were busy for 15 s, 6 of them for this process; 18 s were there


def test_take_sample_calls_once_at_least_and_bounds_the_share_of_others(monkeypatch):
    set_clocks(monkeypatch, wall=[0.0, 5.0, 5.0], own=[0.0, 10.0], busy=[0.0, 9.99])  # the kernel counts in ticks
    sample = sampling.take_sample(Program(lambda: None), seconds=0)
    assert (sample.calls, sample.seconds, sample.foreign) == (1, 5.0, 0.0)


def test_take_sample_returns_none_where_the_system_does_not_count(monkeypatch):
    for name in ('_STAT', '_STATUS', '_CLEAR'):
        monkeypatch.setattr(sampling, name, pathlib.Path('/nowhere'))
    sample = sampling.take_sample(Program(lambda: None), seconds=0)
    assert (sample.foreign, sample.peak_bytes) == (None, None)


@linux
def test_busy_seconds_leave_out_idle_and_waiting_time(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, '_STAT', tmp_path / 'stat')
    monkeypatch.setattr(sampling.os, 'sysconf', lambda name: {'SC_CLK_TCK': 100}[name])
    # user nice system idle iowait irq softirq steal guest guest_nice; guests are counted in user already (proc(5)).
    (tmp_path / 'stat').write_text('cpu  100 20 30 5000 700 4 5 6 90 10\ncpu0 1 1 1 1 1 1 1 1 1 1\n')
    assert sampling._get_busy_seconds() == 1.65


@linux
def test_take_sample_measures_the_peak_of_the_sample_alone():
    size = 200 * 2**20
    before = sampling.take_sample(Program(lambda: None), seconds=0).peak_bytes
    large = sampling.take_sample(Program(lambda: bytearray(b'x') * size), seconds=0).peak_bytes
    after = sampling.take_sample(Program(lambda: None), seconds=0).peak_bytes
    assert large - before > 0.9 * size
    assert after - before < 0.1 * size


@linux
def test_own_seconds_count_the_processes_that_work_for_this_one():
    def count():
        return sampling._get_own_seconds() - time.process_time()

    assert count() == pytest.approx(0, abs=0.01)
    process = multiprocessing.get_context('spawn').Process(target=sum, args=(range(10**10),))
    process.start()
    try:
        end = time.monotonic() + 20
        while count() < 0.2:
            assert time.monotonic() < end and process.is_alive()
            time.sleep(0.05)
    finally:
        process.kill()
        process.join()
    assert count() == pytest.approx(0, abs=0.01)


def test_take_sample_does_not_count_what_settles():
    order = []
    program = Program(lambda: order.append('call'), settle=lambda: order.append('settle') or time.sleep(0.2))
    sample = sampling.take_sample(program, seconds=0.0)
    assert order == ['settle', 'call']
    assert sample.seconds < 0.1


def test_wait_until_idle_returns_when_no_thread_computes(monkeypatch):
    # Looked at before and after each nap: busy for 50 ms, for 12 ms, for 7 ms.
    own = iter([0.0, 0.05, 0.05, 0.062, 0.062, 0.069])
    naps = []
    fake = types.SimpleNamespace(perf_counter=lambda: 7.0, process_time=own.__next__, sleep=naps.append)
    monkeypatch.setattr(sampling, 'time', fake)
    sampling.wait_until_idle()
    assert naps == [0.05] * 3
    assert next(own, None) is None


def test_wait_until_idle_waits_no_longer_than_told(monkeypatch):
    wall, own = iter([10.0, 10.0, 11.0, 11.9, 12.0]), iter(range(100))
    fake = types.SimpleNamespace(perf_counter=wall.__next__, process_time=own.__next__, sleep=lambda seconds: None)
    monkeypatch.setattr(sampling, 'time', fake)
    sampling.wait_until_idle(longest=2.0)
    assert next(own) == 6  # three naps


def test_make_iterator_program_skips_what_was_read_ahead():
    numbers = iter(range(100))
    program = sampling.make_iterator_program(numbers, skip=8)
    program.settle()
    assert program.call() == 8
    assert next(numbers) == 9

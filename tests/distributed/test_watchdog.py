"""Who is lost: a process that is alive and that others wait for, told by what all say of themselves."""

import json
import threading
import time

import pytest

from alexnet_jax.distributed import watchdog
from alexnet_jax.distributed.hosts import ProcessGroup
from alexnet_jax.distributed.phases import PROGRESS, Progress
from alexnet_jax.distributed.watchdog import PeerWatchdog

pytestmark = pytest.mark.filterwarnings('ignore::pytest.PytestUnhandledThreadExceptionWarning')  # see `exit_now`

STEP = (0.3, 'step')  # seconds that others wait, and for what
BATCH = (30.0, 'batch')


class Store:
    """The key-value store, with what the peers have written."""

    def __init__(self):
        self.values = {}

    def key_value_set(self, key, value, allow_overwrite):
        assert allow_overwrite
        self.values[key] = value

    def key_value_dir_get(self, folder):
        return [item for item in self.values.items() if item[0].startswith(folder)]


class Peer:
    """Another process, which gives a sign of life in every call of `live`."""

    def __init__(self, store, index):
        self.store, self.index, self.beat, self.place = store, index, 0, (0, *STEP)

    def live(self):
        self.beat += 1
        count, seconds, phase = self.place
        sign = [self.beat, f'host{self.index}', count, phase, seconds]
        self.store.key_value_set(f'beat/{self.index}', json.dumps(sign), allow_overwrite=True)


@pytest.fixture
def watch(monkeypatch):
    """Makes the watchdog of one of three processes; gives the others, and lets time pass."""
    store, ended, watchdogs = Store(), [], []

    def exit_now(line, code):
        ended.append((line, code))
        raise SystemExit  # of the thread

    monkeypatch.setattr(watchdog, 'get_store', lambda: store)
    monkeypatch.setattr(watchdog, 'exit_now', exit_now)
    monkeypatch.setattr(watchdog, '_BEAT', 0.02)
    monkeypatch.setattr(watchdog, 'PROGRESS', Progress())
    peers = {index: Peer(store, index) for index in range(3)}

    def start(index=1):
        del peers[index]
        group = ProcessGroup(index=index, count=3)
        watchdogs.append(PeerWatchdog(group, heartbeat=20, stuck_after=0.3))
        return peers, watchdog.PROGRESS

    def wait(seconds, each=lambda: None):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not ended:
            each()
            for peer in peers.values():
                peer.live()
            time.sleep(0.01)
        return ended[0] if ended else None

    yield start, wait
    for made in watchdogs:
        made._ended.set()


def test_watchdog_names_the_process_that_others_wait_for(watch):
    start, wait = watch
    peers, own = start()
    own.enter('step 10', slow=False)
    own.enter('step 11', slow=False)
    peers[0].place, peers[2].place = (3, *STEP), (1, 0.3, 'step 10')
    line, code = wait(5)
    assert code == 75
    assert line == (
        'error: lost process 2 (host2): it is alive, and the others have waited 0 s for its step 10; '
        'start all processes again, and the run goes on from its last checkpoint'
    )


def test_watchdog_names_its_own_process_too(watch):
    start, wait = watch
    peers, own = start()
    own.enter('step 10', slow=False)
    peers[0].place = peers[2].place = (2, 0.3, 'step 11')
    line, code = wait(5)
    assert code == 75
    assert 'lost process 1 (' in line
    assert 'for its step 10;' in line


def test_watchdog_waits_where_a_disk_or_a_compiler_sets_the_pace(watch):
    start, wait = watch
    peers, own = start()
    own.enter('step 10', slow=False)
    peers[0].place, peers[2].place = (1, 0.3, 'step 10'), (0, *BATCH)
    assert wait(1) is None


def test_watchdog_waits_where_all_are_in_the_same_long_step(watch):
    start, wait = watch
    peers, own = start()
    own.enter('step 10', slow=False)
    peers[0].place = peers[2].place = (1, 0.3, 'step 10')
    assert wait(1) is None
    peers[2].place = (2, 0.3, 'step 11')  # and of those that end it later, nobody has waited for so long
    assert wait(0.1) is None


def test_watchdog_waits_for_whom_passes_marks_however_late(watch):
    start, wait = watch
    peers, own = start()
    own.enter('step 99', slow=False)
    peers[0].place = (99, *STEP)

    def creep():
        peers[2].place = (int(time.monotonic() * 10) % 50, 1.0, 'step')

    for _ in range(99):
        own.advance()
    assert wait(1.5, creep) is None


def test_watchdog_of_process_0_which_holds_the_store_leaves_when_those_alive_have(watch, monkeypatch):
    monkeypatch.setattr(watchdog, '_SILENCE', 0.1)
    start, wait = watch
    peers, own = start(0)
    own.enter('step 10', slow=False)
    own.enter('step 11', slow=False)
    peers[1].place = (2, 0.3, 'step 11')
    assert wait(0.2) is None
    peers.pop(2)  # its last sign was that it is where it was
    assert wait(0.5) is None  # it is lost, and process 1 has not heard of it
    line = '75 lost process 2'
    peers[1].store.values['left/1'] = line
    assert wait(1)[1] == 75


def test_watchdog_takes_over_what_another_has_found(watch):
    start, wait = watch
    peers, _ = start()
    peers[0].store.values['left/0'] = '75 lost process 2 (host2): it is alive; start all'
    assert wait(1) == ('error: lost process 2 (host2): it is alive; start all', 75)


def test_progress_gives_slow_phases_more_time_and_steps_that_take_long():
    progress = Progress()
    progress.enter('step 1', slow=False)
    assert progress.report(60.0) == (1, 'step 1', 60.0)
    progress._since -= 100  # as if it had taken so long
    progress.enter('test after step 1')
    assert progress.report(60.0) == (2, 'test after step 1', 600.0)
    progress.enter('step 2', slow=False)
    assert progress.report(60.0) == (3, 'step 2', pytest.approx(300.0, rel=1e-3))


def test_progress_counts_the_marks_of_the_main_thread_only():
    count = PROGRESS.report(1.0)[0]
    thread = threading.Thread(target=PROGRESS.advance)
    thread.start()
    thread.join()
    assert PROGRESS.report(1.0)[0] == count
    PROGRESS.advance()
    assert PROGRESS.report(1.0)[0] == count + 1

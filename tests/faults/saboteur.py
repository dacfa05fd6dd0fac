"""Runs alexnet_jax.main with one fault built in, at an exact moment: saboteur.py FAULT.json OPTIONS...

FAULT.json holds {"moment": ..., "at": ..., "do": ..., "mark": FILE}; the time of the fault is written to FILE. Nothing
in the package knows of this: its functions are wrapped from outside, and what is done is real: the process signals
itself, or the operating system's answer is another.
"""

import json
import os
import pathlib
import runpy
import signal
import sys
import threading
import time


class Saboteur:
    def __init__(self, moment, do, mark, at=0, victim=None):
        self.moment, self.do, self.mark, self.at = moment, do, pathlib.Path(mark), at
        self.victim = victim  # the process of a launcher's, once
        self.done = False

    def act(self):
        if self.done and not isinstance(self.at, list):
            return
        self.done = True
        self.mark.write_text(repr(time.time()))
        if self.do.startswith('SIG'):
            for number in self.do.split('+'):
                os.kill(os.getpid(), getattr(signal, number))
                time.sleep(0.3 if '+' in self.do else 0)
        elif self.do == 'MemoryError':
            raise MemoryError('Unable to allocate 64.0 GiB for an array')
        elif self.do == 'clock':  # back by a day: what an NTP correction does at worst
            now = time.time
            time.time = lambda: now() - 86400
        elif self.do.startswith('sleep'):
            time.sleep(float(self.do.removeprefix('sleep')))
        else:
            raise ValueError(self.do)

    def arm(self):
        if self.victim is None or (f'--process_id={self.victim}' in sys.argv and not self.mark.exists()):
            getattr(self, f'arm_{self.moment}')()

    def wrap(self, owner, name, before):
        """Calls `before(*arguments)` first whenever owner.name is called."""
        original = getattr(owner, name)

        def wrapped(*arguments, **options):
            before(*arguments, **options)
            return original(*arguments, **options)

        setattr(owner, name, wrapped)

    def arm_start(self):
        from alexnet_jax.run import run_dir

        self.wrap(run_dir, 'open_or_render', lambda *_: self.act())

    def arm_agree(self):
        """After it has told the others what it has, before it reads what they have."""
        from alexnet_jax.distributed import hosts

        client, saboteur = hosts.get_store, self

        class Slow:
            def __getattr__(self, name):
                return getattr(client(), name)

            def blocking_key_value_get(self, key, timeout):
                if key.startswith('alexnet/agree'):
                    saboteur.act()
                return client().blocking_key_value_get(key, timeout)

        hosts.get_store = Slow

    def arm_compile(self):
        from alexnet_jax.logs.timing import StartupTimer

        self.wrap(StartupTimer, 'compile', lambda *_: threading.Timer(0.3, self.act).start())

    def arm_step(self):
        from alexnet_jax.logs.metrics_reader import MetricsReader

        at = self.at if isinstance(self.at, list) else [self.at]
        self.wrap(MetricsReader, 'add', lambda reader, step, *_: step in at and self.act())

    def arm_dispatch(self):
        """In the call of the update that leads to `at`."""
        from alexnet_jax.logs.timing import StartupTimer

        original, calls = StartupTimer.compile, []

        def compile(timer, lowered):
            update = original(timer, lowered)

            def slowed(*arguments):
                calls.append(1)
                if len(calls) == self.at:
                    self.act()
                return update(*arguments)

            return slowed

        StartupTimer.compile = compile

    def arm_compilation(self):
        from alexnet_jax.logs.timing import StartupTimer

        self.wrap(StartupTimer, 'compile', lambda *_: self.act())

    def arm_batch(self):
        """While the batch after `at` steps is made, as of a slow disk."""
        from alexnet_jax.run import batches

        made = []
        self.wrap(batches, 'place_batch', lambda *_, **__: made.append(1) or (len(made) == self.at + 1 and self.act()))

    def arm_log(self):
        from alexnet_jax.logs.logger import RunLogger

        self.wrap(RunLogger, 'log_training', lambda _, step, *__, **___: step == self.at and self.act())

    def arm_save(self):
        """Once the first hashes of a checkpoint are computed: Orbax is writing, nothing has its final name."""
        from alexnet_jax.checkpoints import checkpointer, orbax_io

        saving = []
        self.wrap(checkpointer.Checkpointer, 'save', lambda _, state, **__: saving.append(int(state.step)))
        self.wrap(orbax_io, 'hash_array', lambda value: saving[-1] == self.at and self.act())

    def arm_evaluation(self):
        """In the test after `at` steps, when the first batch is done."""
        from alexnet_jax.evaluation.evaluator import Evaluator
        from alexnet_jax.run.testing import Tester

        step = [0]
        self.wrap(Tester, 'test', lambda tester, state, protocol: step.__setitem__(0, int(state.step)))
        original = Evaluator.__call__

        def test(evaluator, *arguments, progress, **options):
            def shown(done):
                if step[0] == self.at:
                    self.act()
                    time.sleep(0.2)  # a signal's handler runs in a thread
                progress(done)

            return original(evaluator, *arguments, progress=shown, **options)

        Evaluator.__call__ = test


def main():
    fault = json.loads(pathlib.Path(sys.argv[1]).read_text())
    sys.argv = ['alexnet_jax.main', *sys.argv[2:]]
    Saboteur(**fault).arm()
    runpy.run_module('alexnet_jax.main', run_name='__main__', alter_sys=True)


if __name__ == '__main__':
    main()

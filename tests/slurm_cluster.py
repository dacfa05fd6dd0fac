"""A SLURM cluster of one machine, on loopback, whose files are all in one folder."""

import os
import pathlib
import shutil
import socket
import subprocess
import time

PROGRAMS = ('munged', 'slurmctld', 'slurmd', 'sbatch', 'scontrol', 'sinfo')
PATH = f'{os.environ["PATH"]}:/usr/sbin:/sbin'  # where Debian has the daemons; a user's PATH need not lead there

CONFIGURATION = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
KillWait=60
SchedulerParameters=batch_sched_delay=1,sched_interval=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""  # cred_expire: a requeued job starts one such time later; KillWait: what a run has to save


def find_missing_programs():
    """Returns the programs of SLURM and munge that are not installed."""
    return [program for program in PROGRAMS if not shutil.which(program, path=PATH)]


class Cluster:
    """munged, slurmctld and slurmd, running; commands of SLURM that talk to them."""

    def __init__(self, folder, *, environment):
        """Starts them in `folder`; jobs inherit `environment`."""
        self.folder = pathlib.Path(folder)
        self.environment = environment | {'PATH': PATH, 'SLURM_CONF': str(self.folder / 'slurm.conf')}
        self._daemons = []
        for name in ('state', 'spool'):
            (self.folder / name).mkdir()
        key = self.folder / 'munge.key'
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        (self.folder / 'slurm.conf').write_text(
            CONFIGURATION.format(
                folder=self.folder,
                ports=find_free_ports(2),
                user=subprocess.check_output(['id', '--user', '--name'], text=True).strip(),
                host=socket.gethostname().split('.')[0],
                cpus=os.cpu_count(),
            )
        )
        try:
            munge = {name: f'--{name}-file={self.folder}/munge.{name}' for name in ('key', 'log', 'pid', 'seed')}
            # Forced, because a temporary folder lies below one that everybody may write to.
            self._start('munged', '--foreground', '--force', f'--socket={self.folder}/munge.socket', *munge.values())
            wait_until((self.folder / 'munge.socket').exists, seconds=10, what='munged has opened its socket')
            self._start('slurmctld', '-D')
            self._start('slurmd', '-D')
            wait_until(lambda: self.run('sinfo', '-h', '-o', '%T', check=False) == 'idle', seconds=30, what='idle')
        except BaseException:
            self.stop()
            raise

    def _start(self, name, *options):
        with (self.folder / f'{name}.log').open('w') as log:
            command = [shutil.which(name, path=PATH), *options]
            self._daemons.append(subprocess.Popen(command, env=self.environment, stdout=log, stderr=log))

    def stop(self):
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def run(self, *command, cwd=None, check=True):
        """Returns what a command prints."""
        process = subprocess.run(
            command, env=self.environment, cwd=cwd, capture_output=True, text=True, timeout=60, check=False
        )
        assert not check or process.returncode == 0, (command, process.stderr)
        return process.stdout.strip()

    def get_states(self, job):
        """Returns {'RUNNING'}, {'PENDING'}, {'COMPLETED'}, {'FAILED'}, ...; of an array the states of all its tasks."""
        text = self.run('scontrol', '--oneliner', 'show', 'job', job)
        return {field.partition('=')[2] for field in text.split() if field.startswith('JobState=')}


def wait_until(condition, *, seconds, what):
    """Waits for a condition; fails with `what` in the message when `seconds` have passed."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f'not in {seconds} s: {what}'
        time.sleep(0.1)


def find_free_ports(count):
    """Returns ports of the loopback interface that nothing listens on."""
    probes = [socket.create_server(('127.0.0.1', 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports

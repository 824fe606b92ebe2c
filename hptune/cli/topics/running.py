"""What happens while a run goes on, stops and goes on again."""

from __future__ import annotations


def reproducibility() -> str:
    """Same spec, same numbers."""
    return """
        A trial is identified by a hash of everything that decides its numbers: data, model, loss, metric, optimizer, your code (the file
        a target names and the modules beside it), schedule, hyper-parameters, steps, seed, precision, threads, memory format,
        compilation, micro-batch, device model, the version of torch and of hptune's arithmetic. A changed config reruns only what it
        changed.

        Seeds follow from the config's seed and the number of the repetition, not from the hyper-parameters. On one CPU machine the same
        trial gives the same bits, timing apart, whatever the executor, the number of workers and the order. On a GPU equal bits are not
        promised.

        Precision, memory format, threads and compilation are settled by fixed rules from device, model and config, and by no clock.
        Stages decide from complete rounds, never from which worker was first. So with stages.batch_size.compare: samples and no time
        budget a whole run gives the same numbers, to the bit and timing apart, each time on one CPU machine.

        With compare: time, the default, the length of the batch-size runs follows from measured speeds, and everything after that stage
        from its result. The speeds are measured once and journalled, so that a run that is continued decides as before; a new run
        directory measures anew. With a time budget, how far a search gets depends on the machine's speed.

        The paper has nothing of the kind: the runs behind each of its numbers differ in batch size and initialization.
        """


def continuing() -> str:
    """The journal and what it survives."""
    from hptune.cli.interruption import INTERRUPTED
    from hptune.store.journal import FORMAT

    return f"""
        The same command given again continues. Every trial, plan, measurement and conclusion is one line of journal.jsonl, forced to the
        disk as it happens. A trial found there is not run again, whichever command asks for it, and stages plan afresh from the records,
        so that a run killed at any moment ends with the same tables. A kill costs the trials that were running.

        Ctrl-C, SIGTERM and a closed terminal end a run with what was done saved, exit status {INTERRUPTED} and the command that
        continues. hptune train first finishes its step and saves a checkpoint (a second signal stops at once); it goes on from the newest
        checkpoint that can be read, on a CPU to the same bits.

        Each line has a checksum. A last line that a crash cut off is dropped. Any other damaged line is an error that names it: hptune
        recommend RUN_DIR --salvage leaves damaged lines out and keeps the damaged file under another name; after that the run reads and
        continues, and runs again what was lost. A journal of a newer format than {FORMAT} is refused, not misread.

        One process writes a run directory at a time; a second one says who does. The lock is the operating system's and ends with its
        process. --fresh starts over and renames the old directory. Tables, figures, report and recommended.yaml can be deleted: hptune
        recommend and hptune report rebuild them.
        """


def executors() -> str:
    """Where trials run on this machine."""
    from hptune.calibration import MOST_MEMORY, WORTH_DOUBLING
    from hptune.config.sections import ExecutorSection

    return f"""
        serial runs trials one after another in hptune's own process; process runs them in worker processes, one trial each at a time,
        kept for the whole run; ray runs them on a cluster (hptune explain cluster). auto, the default, is process unless there is to be
        one worker only. Long trials are begun first. The executor changes no trial, and stages wait for all trials of a round.

        On a CPU there is one worker for each executor.threads cores. With several GPUs of one model each worker has one for itself.
        Where auto finds that one trial leaves a CUDA device mostly idle, the number of workers on each is
        doubled, up to a limit, as long as steps per second grow by at least {100 * (WORTH_DOUBLING - 1):g} % and twice as much would
        fill at most {100 * MOST_MEMORY:g} % of the device's memory.

        Idle workers begin trials that will probably be planned next: further seeds, the next stage around what leads. What comes of them
        enters nothing unless it is planned; the end of a run says how many were. executor.foresight: false leaves idle workers idle.

        A worker that dies, or gives no sign of life for executor.heartbeat ({ExecutorSection().heartbeat} by default), is replaced; its
        trial is tried once more, then recorded as failed with the reason. Under serial, code that ends the process ends hptune.

        A trial that runs out of memory beside others is tried again alone before it counts. A batch that does not fit is accumulated in
        smaller pieces, or takes several devices: executor.devices_per_trial. An exception in your code is a failed trial.
        """


def cluster() -> str:
    """Ray clusters."""
    from hptune.executors.pool import MOST_MOVES

    return f"""
        --executor ray (pip install 'hptune[ray]') runs trials on a Ray cluster: executor.address, or auto, which is RAY_ADDRESS, else the
        cluster this machine belongs to, else one on this machine alone. A worker takes executor.cpus_per_trial (auto: one, or the trial's
        threads) and executor.gpus_per_trial (auto: one where the cluster has any; with a half two trials share one); all GPUs are of the
        model that the first worker got. --workers N asks a cluster that can grow for so many; auto takes what fits at the moment, and
        nodes that join are used.

        This process reads the data, once; they go to each node once, through the object store. Your code travels too: the files of
        targets, modules beside them that they import, small files beside them, your packages, pretrained weights; and hptune itself.
        Nodes need Python, torch and hptune's other packages, in the versions of the first worker, or the run ends and says what differs;
        no file system is shared. Only Datasets of your own are opened by each worker, where their files must be. Environment variables
        do not travel.

        This process alone writes the run directory. A lost node costs the trials that ran there another attempt, up to {MOST_MOVES}
        times, and no record; a lost driver's workers end, and the same command continues; Ctrl-C gives the cluster back at once. What a
        trial prints comes back with its result. On a CPU cluster of one processor model results are the same bits as on one machine.

        Under ray job submit, and on Slurm (scripts/slurm_ray.sh), it is the same command.
        """

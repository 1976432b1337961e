"""The command in a process of its own, which is there at once: it is forked from one that has loaded torch."""

import multiprocessing
import os
import sys

from modal_ntk.cli import main

# Not from the tests' own process, which has threads; where nothing can be forked, each starts anew.
PROCESSES = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
PROCESSES.set_forkserver_preload(["torch", "skorch", "modAL.models", "matplotlib.figure", "modal_ntk.bench", "apart"])


def command(folder, *arguments):
    """Start `modal-ntk` with arguments in a folder, whose modules it may import."""
    return process(_run, str(folder), *map(str, arguments))


def process(function, *arguments):
    """Start a function, of a module that others can import, in a process that ends with this one."""
    made = PROCESSES.Process(target=function, args=arguments, daemon=True)
    made.start()
    return made


def _run(folder, *arguments):
    os.chdir(folder)
    sys.path.insert(0, folder)
    silent = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silent, stream)
    sys.exit(main(arguments))

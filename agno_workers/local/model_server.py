"""The process behind LocalModel: `python -P model_server.py WEIGHTS NAME SLOTS SLOT_TOKENS THREADS`.

Prints its address once the model is loaded, then serves until a signal ends it.
"""

from __future__ import annotations

import os
import signal
import sys

import xllamacpp


def main() -> None:
    weights, name, slots, slot_tokens, threads = sys.argv[1:]
    to_parent = os.dup(1)
    os.dup2(2, 1)  # llama.cpp may print; only the address goes to the parent

    params = xllamacpp.CommonParams()
    params.model.path = weights
    params.model_alias = {name}
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # any free port
    params.ui = False
    params.n_parallel = int(slots)
    params.n_ctx = int(slots) * int(slot_tokens)
    params.cache_ram_mib = 256  # for prompts of earlier turns; the default is 8 GB
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(threads)
    server = xllamacpp.Server(params)

    os.write(to_parent, f"{server.listening_address}\n".encode())
    os.close(to_parent)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()

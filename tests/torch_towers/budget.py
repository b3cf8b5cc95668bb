"""Runs code in a separate process with limits of memory and CPU time."""

from __future__ import annotations

import os
import subprocess
import sys


def within_budget(code: str, *arguments: str, above: int = 300 << 20, seconds: int = 20, setup: str = "") -> str:
    """What Python code prints in a process that may take `above` bytes more than its imports, and `seconds` of the processor.

    The seconds are four times what users are promised, for slow and busy machines. `setup` is code that runs before the limits are set: what else is imported.
    """
    head = (
        "import resource, sys; import torch_towers, torch_towers.bulk, torch; torch_towers.load; torch_towers.Index\n"
        "from torch_towers import two_tower, CheckpointError; from torch_towers.search import index\n"
        f"{setup}\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (used + {above}, used + {above}))\n"
        "spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])\n"
        f"resource.setrlimit(resource.RLIMIT_CPU, (int(spent) + {seconds} + 1, int(spent) + {seconds} + 1))\n"
    )
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # many threads would take more addresses
    done = subprocess.run([sys.executable, "-c", head + code, *arguments], env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout

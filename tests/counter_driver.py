"""A made-up RAPL counter that moves: writes energy at a known wattage into a file until it is killed.

Run as ``python counter_driver.py FILE WATTS``. The text keeps its length, so a reader never sees half of it.
"""

from __future__ import annotations

import os
import sys
import time

PERIOD_S = 0.01


def main() -> None:
    path, watts = sys.argv[1], float(sys.argv[2])
    handle = os.open(path, os.O_RDWR)
    start_ns = time.monotonic_ns()
    due_ns = start_ns
    while True:
        joules = watts * (time.monotonic_ns() - start_ns) / 1e9
        os.pwrite(handle, f"{int(joules * 1e6):018d}\n".encode(), 0)
        due_ns += int(PERIOD_S * 1e9)
        time.sleep(max(0.0, (due_ns - time.monotonic_ns()) / 1e9))


if __name__ == "__main__":
    main()

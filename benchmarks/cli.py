"""Wall time of `wb --help` against `python -c pass`, interleaved; one JSON object a line.

Run alone: ``python benchmarks/cli.py [ROUNDS]``. The promise is 0.2 s.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time

ROUNDS = 15
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "wb --help": ["-m", "workbench.cli", "--help"],
    "wb --version": ["-m", "workbench.cli", "--version"],
    "wb run --help": ["-m", "workbench.cli", "run", "--help"],
    "null control: python -c pass": ["-c", "pass"],
}


def main(rounds: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, arguments in COMMANDS.items():
            seconds[name].append(_wall_seconds(arguments))
    control = statistics.median(seconds["python -c pass"])
    for name, taken in seconds.items():
        row = {
            "benchmark": "cli",
            "command": name,
            "median_seconds": round(statistics.median(taken), 4),
            "least_seconds": round(min(taken), 4),
            "most_seconds": round(max(taken), 4),
            "above_control_seconds": round(statistics.median(taken) - control, 4),
            "rounds": rounds,
            "load_average": round(os.getloadavg()[0], 2),
        }
        print(json.dumps(row), flush=True)


def _wall_seconds(arguments: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)

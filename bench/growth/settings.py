"""What a run is told by its environment."""

import os
import platform
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from .process import Failed

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent


@dataclass
class Settings:
    quick: bool
    binary: Path
    place: Path
    results: Path
    pictures: Path
    page: Path | None
    files: list
    sample: int
    seconds: int
    grow_seconds: float
    mib: int
    clients: list
    stores: list
    depths: list
    minutes: list
    minute_seconds: int

    @staticmethod
    def of_environment():
        quick = os.environ.get("QUICK", "") not in ("", "0")
        most = int(os.environ.get("FILES_MAX", 3_000 if quick else 300_000))
        steps = [1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000]
        # A look must not take the place of a run, so it is kept elsewhere unless somebody says where.
        results = Path(os.environ.get("RESULTS", "/tmp/grow-quick.tsv" if quick else HERE / "results.tsv"))
        ours = results.resolve().parent == HERE
        return Settings(
            quick=quick,
            binary=Path(os.environ.get("HOLDFAST_BIN", ROOT / "target/release/holdfast")),
            place=Path(os.environ.get("BENCH_DIR", "/var/tmp")),
            results=results,
            pictures=HERE if ours else results.with_suffix(""),
            page=ROOT / "bench/GROWTH.md" if ours else None,
            files=[step for step in steps if step <= most] or [most],
            sample=500 if quick else 5_000,
            seconds=int(os.environ.get("SECONDS_EACH", 1 if quick else 5)),
            grow_seconds=float(os.environ.get("GROW_SECONDS", 240)),
            mib=int(os.environ.get("SIZE_MIB", 32 if quick else 256)),
            clients=[1, 2] if quick else [1, 2, 4, 8],
            stores=[1, 2, 3] if quick else [1, 2, 3, 4, 6, 8],
            depths=[1, 8, 64] if quick else [1, 2, 4, 8, 16, 32, 64],
            minutes=[1, 2] if quick else list(range(1, 11)),
            minute_seconds=2 if quick else 60,
        )

    def check(self):
        if os.geteuid() != 0:
            raise Failed("needs root (mounts)")
        if not shutil.which("fio"):
            raise Failed("needs fio")
        if not os.access(self.binary, os.X_OK):
            raise Failed(f"needs {self.binary}: cargo build --release, or set HOLDFAST_BIN")

    def described(self):
        """One line for readers of the figures: when, on what, how."""
        version = subprocess.run([self.binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
        how = f"{self.seconds} s, {self.mib} MiB" + (", a quick look" if self.quick else "")
        return (
            f"{time.strftime('%d %B %Y')}, {version}, Linux {platform.release()}, {os.cpu_count()} processors, "
            f"{memory:.0f} GiB; {how}"
        )

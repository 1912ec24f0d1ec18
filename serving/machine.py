"""Which machine this is: its start, and the loopback that a process here can reach.

A host name is not enough: two machines may share one, and two containers of one machine have a loopback each.
Next: `run_leases.py`, `slot_keys.py`, which ask.
"""

from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NETWORK = Path("/proc/self/ns/net")


def boot_id() -> str:
    """Differs after each start of the machine."""
    if _BOOT_ID.exists():
        return _BOOT_ID.read_text(encoding="ascii").strip()
    import psutil  # 1 MB in each gateway worker, and needed where the kernel gives a start no name

    return f"{psutil.boot_time():.0f}"


def loopback() -> str:
    """The same for all who reach each other at 127.0.0.1, and for nobody else."""
    return f"{boot_id()}/{_NETWORK.stat().st_ino if _NETWORK.exists() else 0}"

"""What else the machine does: watched at the edges of windows, judged, named, and listened to while perjoule rests."""

from perjoule.noise.judge import (
    MAX_CLOCK_JUMP_S,
    MAX_FOREIGN_SHARE,
    MAX_MEMORY_PRESSURE_SHARE,
    MAX_STEAL_SHARE,
    rejection,
)
from perjoule.noise.pressure import Pressure, read_pressure
from perjoule.noise.quiet import WINDOW_S, Noise, listen
from perjoule.noise.watch import Look, Watch, changes
from perjoule.noise.who import Lookout, who

__all__ = [
    "MAX_CLOCK_JUMP_S",
    "MAX_FOREIGN_SHARE",
    "MAX_MEMORY_PRESSURE_SHARE",
    "MAX_STEAL_SHARE",
    "WINDOW_S",
    "Look",
    "Lookout",
    "Noise",
    "Pressure",
    "Watch",
    "changes",
    "listen",
    "read_pressure",
    "rejection",
    "who",
]

"""Where US states stand on a tile-grid map: one square per state, neighbours side by side as far as squares allow."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_ROWS = (
    "AK .. .. .. .. .. .. .. .. .. ME",
    ".. .. .. .. .. .. .. .. .. VT NH",
    "WA ID MT ND MN WI .. MI NY MA RI",
    "OR NV WY SD IA IL IN OH PA NJ CT",
    "CA UT CO NE MO KY WV VA MD DE DC",
    ".. AZ NM KS AR TN NC SC .. .. ..",
    ".. .. .. OK LA MS AL GA .. .. ..",
    "HI .. .. TX .. .. .. .. FL .. ..",
)

US_TILES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        state: (row, column)
        for row, line in enumerate(_ROWS)
        for column, state in enumerate(line.split())
        if state != ".."
    }
)
"""Row and column of the 50 states and the District of Columbia."""

"""Constants of the flow policy, shared by the Python and the C++ runtime.

Plain literals only: cpp_bindings/tools/flow_constants.py turns this file into a C++ header. docs/flow_policy.md has a
measurement of what the options are worth.
"""

MAX_ITERATIONS = 100
"""Largest number of refinement iterations per computed flow; RAFT uses 12 to 32."""

# Thumbnails, on which cuts and stillness are judged.
THUMBNAIL_WIDTH = 32
THUMBNAIL_HEIGHT = 18

# Scene cuts.
SCENE_CUT = 30.0
"""Mean absolute difference of successive thumbnails, in grey levels, above which a frame may be a cut ..."""
RECENT_FRAMES = 5
UNUSUAL = 2.0
"""... if it is also this multiple of the median difference of the last ``RECENT_FRAMES`` (a fast pan is no cut) ..."""
SIMILAR = 0.7
"""... and the correlation of the thumbnails is below this (a flash or a change of exposure is no cut)."""

# Stillness.
CALM_FRAMES = 3
"""Successive frames without motion before the flow is left out."""
RESTLESS = 1.5
"""Multiple of ``still`` that must move before the flow is computed again (hysteresis)."""

# Frame budget.
KEEP_FRAMES = 4
"""Frames for which a flow that cannot be renewed in time is kept; then it is zero."""
WINDOW = 9
"""Frames in the median that estimates the time of a stage."""
FEWEST = 5
"""Measured frames before the budget limits anything: the first ones load and warm up."""
PATIENCE = 15
"""Successive frames that must leave room for more iterations before more are computed."""
ROOM = 0.85
"""Share of the budget within which there is room for more; fewer are computed as soon as all of it is exceeded."""
FORGET = 150
"""Frames without flow after which its measured cost is dropped and it is tried again."""

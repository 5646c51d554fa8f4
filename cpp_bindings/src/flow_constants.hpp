// Written by tools/flow_constants.py from rvos_edge/flow/constants.py, which explains them; do not edit.
#pragma once

namespace rvos_edge::flow_constants {

inline constexpr int max_iterations = 100;
inline constexpr int thumbnail_width = 32;
inline constexpr int thumbnail_height = 18;
inline constexpr double scene_cut = 30.0;
inline constexpr int recent_frames = 5;
inline constexpr double unusual = 2.0;
inline constexpr double similar = 0.7;
inline constexpr int calm_frames = 3;
inline constexpr double restless = 1.5;
inline constexpr int keep_frames = 4;
inline constexpr int window = 9;
inline constexpr int fewest = 5;
inline constexpr int patience = 15;
inline constexpr double room = 0.85;
inline constexpr int forget = 150;

}  // namespace rvos_edge::flow_constants

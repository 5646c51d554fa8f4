/// @file
/// Names of graphs and tensors that the runtime knows.
#pragma once

namespace rvos_edge {

inline constexpr const char* text_graph = "text";
inline constexpr const char* ids_input = "input_ids";
inline constexpr const char* mask_input = "attention_mask";
inline constexpr const char* vision_graphs[] = {"backbone", "aspp"};
/// Replaces the two if they were exported as one.
inline constexpr const char* fused_vision_graph = "vision";
inline constexpr const char* flow_graphs[] = {"flow_encode", "flow_context", "flow_step", "flow_up"};
inline constexpr const char* flow_encode = "flow_encode";
inline constexpr const char* flow_context = "flow_context";
inline constexpr const char* flow_step = "flow_step";
inline constexpr const char* flow_up = "flow_up";
inline constexpr const char* gating_graph = "gating";
/// Optional: refines the output of gating along the image's edges.
inline constexpr const char* boundary_graph = "boundary";
/// Optional: learns queries from shown frames.
inline constexpr const char* teach_graph = "teach";
inline constexpr const char* frame_input = "image";
inline constexpr const char* margin_output = "margin";
/// Optional output of gating: probability that a query's object is in the frame.
inline constexpr const char* presence_output = "presence";
inline constexpr const char* flow_output = "flow";
inline constexpr const char* flow_coords = "coords";
/// Slot of the identity grid, which is copied to the coordinates to start from zero flow.
inline constexpr const char* flow_grid = "coords_start";
/// The symbolic extent of everything that has one row per query.
inline constexpr const char* queries_symbol = "Q";

}  // namespace rvos_edge

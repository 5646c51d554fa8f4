/// @file
/// Facts about the machine, in the format of benchmarks/schema.py.
#pragma once

#include <nlohmann/json.hpp>

namespace rvos_edge_examples {

/// The schema's `Machine`.
/// @param uses_gpu  True if a backend ran on the GPU, which then names the machine.
[[nodiscard]] nlohmann::ordered_json read_machine(bool uses_gpu);

/// The schema's `State`: load, governors, temperatures.
[[nodiscard]] nlohmann::ordered_json read_state();

/// Seconds since this process was started; 0 if unknown.
[[nodiscard]] double process_age();

/// Largest resident set so far, in MiB.
[[nodiscard]] double peak_mib();

}  // namespace rvos_edge_examples

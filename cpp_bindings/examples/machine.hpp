/// @file
/// What machine this is and how it fares, as benchmarks/schema.py has it.
#pragma once

#include <nlohmann/json.hpp>

namespace rvos_edge_examples {

/// `Machine`.
/// @param uses_gpu  Whether a backend ran on the GPU, which then gives the machine its name.
[[nodiscard]] nlohmann::ordered_json read_machine(bool uses_gpu);

/// `State`: load, governors, temperatures.
[[nodiscard]] nlohmann::ordered_json read_state();

/// Seconds since this process was started; 0 where that is not known.
[[nodiscard]] double process_age();

/// Largest resident set so far, in MiB.
[[nodiscard]] double peak_mib();

}  // namespace rvos_edge_examples

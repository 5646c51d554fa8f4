/// @file
/// Small NumPy archives, as `np.savez` writes and `np.load` reads them: the disk cache is shared with Python.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "rvos_edge/engine.hpp"

namespace rvos_edge {

/// The bytes of an uncompressed archive of arrays.
[[nodiscard]] std::string write_npz(const std::vector<HostTensor>& arrays);

/// The arrays of an archive; none where it is damaged, compressed, or holds something else than C-ordered arrays of the
/// dtypes of a bundle.
[[nodiscard]] std::optional<std::vector<HostTensor>> read_npz(std::string_view bytes);

}  // namespace rvos_edge

/// @file
/// Expectations on errors.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "rvos_edge/error.hpp"

namespace tiny {

/// Expect a UserError with a code and a message that contains a text.
template <class Work>
void expect_refused(rvos_edge::ErrorCode code, const std::string& text, Work work) {
  try {
    work();
    ADD_FAILURE() << "nothing was refused, expected: " << text;
  } catch (const rvos_edge::UserError& error) {
    EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(code)) << error.what();
    EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
  }
}

}  // namespace tiny

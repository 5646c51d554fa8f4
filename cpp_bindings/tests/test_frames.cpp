// Pixels and the flow policy. tests/cpp_bindings/test_parts.py compares them with OpenCV and Python.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "expect.hpp"
#include "flow_policy.hpp"
#include "placement.hpp"
#include "postprocess.hpp"
#include "resize.hpp"

namespace {

using namespace rvos_edge;
using tiny::expect_refused;
using Bytes = std::vector<std::uint8_t>;

TEST(Resize, CopiesWhatFits) {
  Bytes image(4 * 5 * 3);
  std::iota(image.begin(), image.end(), std::uint8_t{0});
  Bytes target(image.size());
  Resizer resize({4, 5});
  resize({image.data(), 4, 5}, target.data());
  EXPECT_EQ(target, image);
}

TEST(Resize, HonoursTheStride) {
  // Two rows of two pixels with a gap that must not show, and from the bottom up.
  const Bytes image = {10, 20, 30, 40, 50, 60, 255, 255, 70, 80, 90, 100, 110, 120, 255, 255};
  Bytes target(12);
  Resizer resize({2, 2});
  resize({image.data(), 2, 2, 3, 8}, target.data());
  EXPECT_EQ(target, (Bytes{10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120}));
  resize({image.data() + 8, 2, 2, 3, -8}, target.data());
  EXPECT_EQ(target, (Bytes{70, 80, 90, 100, 110, 120, 10, 20, 30, 40, 50, 60}));
  Bytes one(3);
  Resizer shrink({1, 1});
  shrink({image.data(), 2, 2, 3, 8}, one.data());
  EXPECT_EQ(one, (Bytes{55, 65, 75}));
}

TEST(Resize, AveragesAreas) {
  Bytes image(36 * 64 * 3);
  for (std::size_t i = 0; i < image.size(); ++i) {
    image[i] = i / 3 / 64 % 2 == 0 ? 10 : 20;
  }
  Bytes target(18 * 32 * 3);
  AreaResizer shrink({18, 32});
  shrink(image.data(), {36, 64}, target.data());
  EXPECT_EQ(target, Bytes(target.size(), 15));
}

TEST(Placement, StretchesALittleAndThenPads) {
  const Region wide = place({480, 640}, {288, 512});
  EXPECT_EQ(wide.width, 512);
  EXPECT_EQ(wide.height, 288);
  const Region tall = place({640, 480}, {288, 512});
  EXPECT_EQ(tall.left, 112);
  EXPECT_EQ(tall.width, 400 - 112);
  EXPECT_EQ(tall.height, 288);
  const Region half = scale_region(tall, {288, 512}, {144, 256});
  EXPECT_EQ(half.left, 56);
  EXPECT_EQ(half.width, 144);
}

TEST(Placement, FillsThePaddingOfAFlowWithItsStatistics) {
  const Size grid{2, 8};
  std::vector<float> flow(32, 100);
  const Region region{0, 2, 2, 4};
  for (int y = 0; y < 2; ++y) {
    for (int x = 2; x < 6; ++x) {
      flow[static_cast<std::size_t>(8 * y + x)] = x < 4 ? 1.0F : 3.0F;
      flow[static_cast<std::size_t>(16 + 8 * y + x)] = 5;
    }
  }
  fill_padding(flow, grid, region);
  EXPECT_EQ(std::vector<float>(flow.begin(), flow.begin() + 8), (std::vector<float>{3, 1, 1, 1, 3, 3, 3, 1}));
  EXPECT_EQ(flow[16], 5);
}

TEST(Frames, AreRefusedWithTheirShape) {
  const std::uint8_t pixel[3] = {};
  check_frame({pixel, 1, 1});
  expect_refused(ErrorCode::bad_frame, "not a null pointer", [] { check_frame({nullptr, 4, 4}); });
  expect_refused(ErrorCode::bad_frame, "not uint8 of shape [0, 4, 3]; convert it.", [&] {
    check_frame({pixel, 0, 4});
  });
  expect_refused(ErrorCode::bad_frame, "not uint8 of shape [1, 1, 4]; convert it.", [&] {
    check_frame({pixel, 1, 1, 4});
  });
  expect_refused(ErrorCode::bad_frame, "not uint8 of shape [1, -1, 3]; convert it.", [&] {
    check_frame({pixel, 1, -1});
  });
  expect_refused(ErrorCode::bad_frame, "take 6 bytes, more than its stride of 5", [&] {
    check_frame({pixel, 2, 2, 3, 5});
  });
}

TEST(Masks, AreMarginsAboveTheThreshold) {
  Array<float> margins;
  margins.resize({2, 1, 2});
  const float values[4] = {-1, 1, 2, 4};
  std::copy(std::begin(values), std::end(values), margins.begin());
  Postprocessor postprocess(0);
  Array<std::uint8_t> masks;
  postprocess.masks(margins, {1, 4}, masks);
  EXPECT_EQ(masks.shape(), (Shape{2, 1, 4}));
  // -1, -0.5, 0.5, 1 between half-pixel centres.
  EXPECT_EQ(Bytes(masks.begin(), masks.end()), (Bytes{0, 0, 1, 1, 1, 1, 1, 1}));
  Array<float> scores;
  postprocess.scores(margins, scores);
  EXPECT_NEAR(scores[0], 1 / (1 + std::exp(-1.0)), 1e-6);
  EXPECT_NEAR(scores[1], (1 / (1 + std::exp(-2.0)) + 1 / (1 + std::exp(-4.0))) / 2, 1e-6);
  Postprocessor(5).scores(margins, scores);
  EXPECT_EQ(scores[0], 0);
}

TEST(Policy, StartsWithZeroAndKeepsBetween) {
  FlowOptions options;
  options.every = 2;
  FlowPolicy policy(options, 3);
  const Bytes black(64 * 96 * 3, 0);
  std::string actions;
  for (int i = 0; i < 5; ++i) {
    actions += flow_action_name(policy.decide(black.data(), {64, 96}, {64, 96}).action);
    actions += ' ';
  }
  EXPECT_EQ(actions, "zero run keep run keep ");
  EXPECT_EQ(policy.decide(black.data(), {64, 96}, {64, 97}).reason, "the frame's size changed");
  policy.reset();
  EXPECT_EQ(policy.decide(black.data(), {64, 96}, {64, 97}).reason, "first frame");
}

TEST(Policy, ComputesWhatThereIsTimeFor) {
  FrameBudget budget(24, 4);
  for (int i = 0; i < 5; ++i) {
    budget.observe({{"backbone", 30.0}, {"flow_encode", 4.0}, {"flow_step", 12.0}}, 4);
  }
  const Allowance allowed = budget.allow();
  EXPECT_EQ(allowed.iterations, 2);
  EXPECT_FALSE(allowed.late);
  budget.set_most(1);
  EXPECT_EQ(budget.allow().iterations, 1);
}

TEST(Policy, RefusesOptionsOutOfRange) {
  const auto refused = [](const char* option, auto change) {
    FlowOptions options;
    change(options);
    expect_refused(ErrorCode::invalid_argument, std::string("flow option '") + option + "'",
                   [&] { check_flow_options(options); });
  };
  check_flow_options({});
  refused("iterations", [](FlowOptions& o) { o.iterations = 0; });
  refused("iterations", [](FlowOptions& o) { o.iterations = 101; });
  refused("every", [](FlowOptions& o) { o.every = 0; });
  refused("still", [](FlowOptions& o) { o.still = std::numeric_limits<double>::infinity(); });
  refused("hold_fps", [](FlowOptions& o) { o.hold_fps = std::numeric_limits<double>::quiet_NaN(); });
  refused("hold_fps", [](FlowOptions& o) { o.hold_fps = 1001; });
}

}  // namespace

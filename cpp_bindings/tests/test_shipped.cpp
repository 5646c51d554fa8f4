// The shipped bundle on the backends for the CPU. tests/cpp_bindings/test_parity.py compares its masks with Python's.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "expect.hpp"
#include "rvos_edge/rvos_edge.h"
#include "rvos_edge/segmenter.hpp"
#include "tiny.hpp"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

namespace {

using namespace rvos_edge;
using tiny::expect_refused;

const char* const bundle_path = RVOS_EDGE_TEST_BUNDLE;

/// An image of a moving pattern.
std::vector<std::uint8_t> picture(int height, int width, int shift) {
  std::vector<std::uint8_t> image(count({height, width, 3}));
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      auto* pixel = &image[count({y, width, 3}) + 3 * static_cast<std::size_t>(x)];
      pixel[0] = static_cast<std::uint8_t>(60 + y % 64);
      pixel[1] = static_cast<std::uint8_t>(90 + (x + shift) % 32 * 2);
      pixel[2] = static_cast<std::uint8_t>((x / 40 + y / 40) % 2 * 120);
    }
  }
  return image;
}

class Shipped : public testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(On, Shipped, testing::Values(RVOS_EDGE_TEST_BACKENDS),
                         [](const auto& each) { return std::string(each.param); });

TEST_P(Shipped, StepsWhileQueriesChange) {
  Options options;
  options.backend = GetParam();
  Segmenter segmenter(Bundle::open(bundle_path), options);
  const bool openvino = options.backend == "openvino";
  EXPECT_EQ(segmenter.backend_name().find(openvino ? "OpenVINO 20" : "ONNX Runtime 1."), 0U);
  EXPECT_EQ(segmenter.backend_reason(), std::string(openvino ? "OpenVINO" : "onnxruntime") + " was requested");
  segmenter.set_queries({"the dog on the left"});
  std::atomic<bool> done{false};
  std::thread other([&] {
    segmenter.set_queries({"a red ball", "a person"});
    segmenter.set_queries({"a cat"});
    done = true;
  });
  Result result;
  for (int i = 0; i < 4 || !done; ++i) {
    const auto image = picture(100, 160, 3 * i);
    segmenter.step({image.data(), 100, 160}, result);
    EXPECT_EQ(result.index, i);
    EXPECT_EQ(result.flow_used, i > 0);
    EXPECT_EQ(result.masks.shape()[0], static_cast<std::int64_t>(result.queries.size()));
    for (const float margin : result.margins) {
      ASSERT_TRUE(std::isfinite(margin));
    }
  }
  other.join();
  EXPECT_EQ(segmenter.queries(), std::vector<std::string>{"a cat"});
}

TEST_P(Shipped, RunsThroughTheCInterface) {
  rvos_error error;
  rvos_bundle* bundle = nullptr;
  ASSERT_EQ(rvos_bundle_open(bundle_path, 0, 0, &bundle, &error), RVOS_OK) << error.message;
  rvos_options options;
  rvos_options_init(&options);
  options.backend = GetParam();
  options.threads = 1;
  options.flow_keep_flow = 1;
  rvos_segmenter* segmenter = nullptr;
  ASSERT_EQ(rvos_segmenter_create(bundle, &options, &segmenter, &error), RVOS_OK) << error.message;
  rvos_bundle_destroy(bundle);
  rvos_result* result = rvos_result_create();
  const auto image = picture(50, 80, 0);
  EXPECT_EQ(rvos_segmenter_step(segmenter, image.data(), 50, 80, 0, result, &error), RVOS_BAD_QUERY);
  const char* queries[] = {"the dog", "a car"};
  ASSERT_EQ(rvos_segmenter_set_queries(segmenter, queries, 2, &error), RVOS_OK) << error.message;
  EXPECT_EQ(rvos_query_doubt("a car", &error), 0);
  EXPECT_EQ(rvos_query_doubt("le chien rouge", &error), 1);
  EXPECT_EQ(std::string(error.message).find("'le chien rouge' does not look like English"), 0U);
  EXPECT_EQ(rvos_query_doubt(nullptr, &error), 1);
  EXPECT_EQ(rvos_segmenter_step(segmenter, nullptr, 50, 80, 0, result, &error), RVOS_BAD_FRAME);
  EXPECT_EQ(rvos_segmenter_set_adapt(segmenter, 1, 1, &error), RVOS_OK) << error.message;
  ASSERT_EQ(rvos_segmenter_step(segmenter, image.data(), 50, 80, 0, result, &error), RVOS_OK) << error.message;
  EXPECT_EQ(rvos_result_queries(result), 2U);
  EXPECT_STREQ(rvos_result_query(result, 1), "a car");
  int32_t height = 0;
  int32_t width = 0;
  EXPECT_NE(rvos_result_masks(result, &height, &width), nullptr);
  EXPECT_EQ(height, 50);
  EXPECT_EQ(width, 80);
  EXPECT_NE(rvos_result_margins(result, &height, &width), nullptr);
  const Manifest manifest = read_manifest(bundle_path);
  EXPECT_EQ(height, manifest.size.height / manifest.stride);
  EXPECT_EQ(width, manifest.size.width / manifest.stride);
  EXPECT_NE(rvos_result_flow(result, &height, &width), nullptr);
  EXPECT_GE(rvos_result_scores(result)[0], 0);
  EXPECT_EQ(rvos_result_adapted(result)[0], 0);
  EXPECT_STREQ(rvos_result_flow_reason(result), "first frame");
  double milliseconds = 0;
  EXPECT_STREQ(rvos_result_timing(result, 1, &milliseconds), "backbone");
  EXPECT_GT(milliseconds, 0);
  EXPECT_EQ(rvos_segmenter_reset(segmenter, &error), RVOS_OK);
  rvos_result_destroy(result);
  rvos_segmenter_destroy(segmenter);
}

TEST_P(Shipped, RefusesAFileThatIsNoGraph) {
  const tiny::Folder folder;
  tiny::write_bundle(folder.path());
  Options options;
  options.backend = GetParam();
  const Bundle bundle = Bundle::open(folder.path());
#ifdef __SANITIZE_ADDRESS__
  // OpenVINO tries all of its readers; that of TensorFlow leaks eight bytes when it is unloaded.
  const __lsan::ScopedDisabler disabled;
#endif
  const char* const product = options.backend == "openvino" ? "OpenVINO" : "ONNX Runtime";
  expect_refused(ErrorCode::engine, std::string("backbone.onnx cannot be loaded by ") + product + " (",
                 [&] { Segmenter(bundle, options); });
}

}  // namespace

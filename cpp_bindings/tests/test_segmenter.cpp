// The graphs chained over a video, from C++ and from C.
#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <cstring>
#include <limits>
#include <thread>

#include "expect.hpp"
#include "rvos_edge/rvos_edge.h"
#include "rvos_edge/segmenter.hpp"
#include "tiny.hpp"

namespace {

using namespace rvos_edge;
using tiny::expect_refused;
using Names = std::vector<std::string>;

class Segment : public testing::Test {
 protected:
  Segmenter open(Options options = {}, bool flow = true) {
    tiny::write_bundle(folder_.path(), tiny::manifest(flow));
    return {Bundle::open(folder_.path()), tiny::make_backend(journal_), options};
  }

  /// A frame of one colour.
  ImageView frame(std::uint8_t value, int height = tiny::height, int width = tiny::width) {
    pixels_.assign(count({height, width, 3}), value);
    return {pixels_.data(), height, width};
  }

  Names runs() { return std::exchange(journal_.runs, {}); }

  tiny::Folder folder_;
  tiny::Journal journal_;
  std::vector<std::uint8_t> pixels_;
};

TEST_F(Segment, AnswersEveryQuery) {
  Segmenter segmenter = open();
  segmenter.set_queries({" the red  ball", "dog"});
  const Result result = segmenter.step(frame(130, 18, 40));
  EXPECT_EQ(result.queries, (Names{"the red ball", "dog"}));
  EXPECT_EQ(result.masks.shape(), (Shape{2, 18, 40}));
  EXPECT_EQ(result.margins.shape(), (Shape{2, 9, 16}));
  EXPECT_EQ(result.margins[0], 2 * 3);
  EXPECT_EQ(result.margins[9 * 16], 2 * 1);
  EXPECT_EQ(result.masks[0], 1);
  EXPECT_NEAR(result.scores[1], 1 / (1 + std::exp(-2.0)), 1e-6);
  EXPECT_EQ(result.index, 0);
  const Result dark = segmenter.step(frame(100, 18, 40));
  EXPECT_EQ(dark.masks[0], 0);
  EXPECT_EQ(dark.scores[0], 0);
  EXPECT_EQ(dark.index, 1);
}

TEST_F(Segment, HandsOnThePresence) {
  tiny::Json manifest = tiny::manifest();
  manifest["format_version"] = 4;
  auto& outputs = manifest["graphs"]["gating"]["outputs"];
  outputs.push_back({{"name", "presence"}, {"dtype", "float32"}, {"shape", {"Q"}}});
  tiny::write_bundle(folder_.path(), manifest);
  Segmenter segmenter(Bundle::open(folder_.path()), tiny::make_backend(journal_));
  segmenter.set_queries({"dog", "the red ball"});
  Result result = segmenter.step(frame(130));
  EXPECT_NEAR(result.presence[0], 0.5F, 1e-6);
  EXPECT_NEAR(result.presence[1], 0.1F, 1e-6);
  EXPECT_EQ(result.present[1], 0);
  EXPECT_EQ(result.masks[tiny::height * tiny::width], 0);
  EXPECT_EQ(result.scores[1], 0);
  Segmenter without = open();
  without.set_queries({"dog"});
  without.step(frame(130), result);
  EXPECT_EQ(result.presence[0], 1);
  EXPECT_EQ(result.present[0], 1);
  outputs[1]["shape"] = {"Q", 2};
  tiny::write_bundle(folder_.path(), manifest);
  const Bundle wrong = Bundle::open(folder_.path());
  expect_refused(ErrorCode::bad_bundle, "tensor 'presence'", [&] { Segmenter(wrong, tiny::make_backend(journal_)); });
}

// float32 4 and 1 as base64; the network is the tiny manifest's checkpoint.
tiny::Json taught() {
  return {{"format_version", 1},
          {"network", std::string(64, '0')},
          {"name", "my mug"},
          {"sentence", " a  dog"},
          {"shots", 2},
          {"j", nullptr},
          {"presence_shift", 1.0},
          {"vectors", {{"lang1", "AACAQAAAgD8="}}}};
}

TEST_F(Segment, TakesTaughtQueries) {
  tiny::Json manifest = tiny::manifest();
  manifest["graphs"]["gating"]["outputs"].push_back({{"name", "presence"}, {"dtype", "float32"}, {"shape", {"Q"}}});
  tiny::write_bundle(folder_.path(), manifest);
  Segmenter segmenter(Bundle::open(folder_.path()), tiny::make_backend(journal_));
  tiny::write_file(folder_.path() / "mug.query", taught().dump());
  const std::string file = "@" + (folder_.path() / "mug.query").string();
  EXPECT_EQ(segmenter.check_queries({"dog", file}), (Names{"dog", "my mug"}));
  tiny::Json nameless = taught();
  nameless["name"] = "";
  segmenter.set_queries({"dog", file, nameless.dump()});
  const Result result = segmenter.step(frame(130));
  EXPECT_EQ(result.queries, (Names{"dog", "my mug", "a dog"}));
  EXPECT_EQ(result.margins[0], 2 * 1);
  EXPECT_EQ(result.margins[9 * 16], 2 * 4);
  EXPECT_EQ(result.margins[2 * 9 * 16], 2 * 4);
  // The tiny network is 1 / 17 sure of it, a logit of -log(16), and the query adds 1.
  EXPECT_NEAR(result.presence[1], 1 / (1 + 16 * std::exp(-1.0)), 1e-6);
  EXPECT_EQ(result.presence[0], 0.5F);
}

TEST_F(Segment, RefusesHostileQueriesInOneSentence) {
  Segmenter segmenter = open();
  segmenter.set_queries({"dog"});
  const auto refused = [&](const char* text, const std::string& query, ErrorCode code = ErrorCode::bad_query) {
    expect_refused(code, text, [&] { segmenter.set_queries({"a", query}); });
    EXPECT_EQ(segmenter.queries(), Names{"dog"});
  };
  const auto changed = [](const char* field, const tiny::Json& value) {
    tiny::Json document = taught();
    document[field] = value;
    return document.dump();
  };
  const std::string path = (folder_.path() / "x.query").string();
  refused("is not a file; make it with: rvos-edge teach", "@" + path, ErrorCode::not_found);
  tiny::write_file(path, taught().dump() + std::string(4096, ' '));
  refused("is larger than 4096 bytes", "@" + path);
  tiny::write_file(path, std::string(2000, '['));
  refused("it is nested too deeply", "@" + path);
  tiny::write_file(path, "\xff\xfe");
  refused("it is not readable JSON", "@" + path);
  refused("'format_version' is 9 and this library reads 1", changed("format_version", 9));
  refused("'vectors' must be an object", changed("vectors", 3));
  refused("'vectors.lang1' is not base64", changed("vectors", {{"lang1", "a*=="}}));
  refused("'vectors.lang1' is not base64 of float32", changed("vectors", {{"lang1", "AACA"}}));
  refused("'vectors.lang1' holds numbers that are not finite", changed("vectors", {{"lang1", "AADAfwAAgD8="}}));
  refused("'presence_shift' must be a finite number", changed("presence_shift", "1"));
  refused("'name' is longer than 100 characters", changed("name", std::string(101, 'x')));
  refused("'pixels' is not a known field", changed("pixels", ""));
  refused("query 2 is empty", changed("sentence", ""));
  refused("query 'my mug' was taught to another network (22222222) than that of",
          changed("network", std::string(64, '2')));
  refused("was taught to another network", changed("vectors", {{"lang1", "AACAPw=="}}));
  refused("was taught to another network", changed("vectors", {{"lang9", "AACAQAAAgD8="}}));
}

TEST_F(Segment, RunsWhatTheDecisionSays) {
  Options options;
  options.flow.keep_flow = true;
  Segmenter segmenter = open(options);
  segmenter.set_queries({"dog"});
  Result result;
  segmenter.step(frame(10), result);
  EXPECT_EQ(runs(), (Names{"backbone", "aspp", "flow_encode", "gating"}));
  EXPECT_EQ(result.decision->reason, "first frame");
  EXPECT_EQ(result.flow.shape(), (Shape{2, 9, 16}));
  EXPECT_EQ(result.flow[5], 0);
  segmenter.step(frame(20), result);
  EXPECT_EQ(runs(), (Names{"backbone", "aspp", "flow_encode", "flow_context", "flow_step", "flow_step", "flow_step",
                           "flow_up", "gating"}));
  EXPECT_TRUE(result.flow_used);
  // The tiny flow is the coordinates: the identity grid and one for every update; column 5, row 0.
  EXPECT_EQ(result.flow[5], 5 + 3);
  EXPECT_EQ(result.flow[9 * 16 + 5], 0 + 3);
  segmenter.step(frame(20), result);
  EXPECT_TRUE(result.decision->warm);
  EXPECT_EQ(result.flow[5], 5 + 6);
  Names stages;
  for (const Timing& timing : result.timings) {
    stages.push_back(timing.stage);
  }
  EXPECT_EQ(stages, (Names{"preprocess", "backbone", "aspp", "flow_encode", "flow_context", "flow_step", "flow_up",
                           "gating", "postprocess"}));
}

TEST_F(Segment, DoesWithoutFlow) {
  Options options;
  options.flow.enabled = false;
  for (const bool in_bundle : {true, false}) {
    Segmenter segmenter = open(options, in_bundle);
    segmenter.set_queries({"dog"});
    const Result result = segmenter.step(frame(200));
    EXPECT_FALSE(result.decision.has_value());
    EXPECT_EQ(runs(), (Names{"backbone", "aspp", "gating"}));
  }
}

TEST_F(Segment, KeepsTheOldQueriesOnAnError) {
  Segmenter segmenter = open();
  expect_refused(ErrorCode::bad_query, "no queries are set; call set_queries before step.",
                 [&] { static_cast<void>(segmenter.step(frame(1))); });
  segmenter.set_queries({"dog"});
  expect_refused(ErrorCode::bad_query, "query 2 is empty", [&] { segmenter.set_queries({"a", ""}); });
  EXPECT_EQ(segmenter.queries(), Names{"dog"});
  expect_refused(ErrorCode::bad_query, "there are 65 queries and this bundle takes at most 64 at once; give fewer.",
                 [&] { segmenter.set_queries(Names(65, "dog")); });
  expect_refused(ErrorCode::bad_frame, "null pointer", [&] { static_cast<void>(segmenter.step({})); });
  EXPECT_EQ(segmenter.step(frame(1)).index, 0);
}

TEST_F(Segment, ForgetsTheVideoAfterAFailure) {
  Segmenter segmenter = open();
  segmenter.set_queries({"dog"});
  static_cast<void>(segmenter.step(frame(1)));
  journal_.fails = "flow_up";
  expect_refused(ErrorCode::engine, "fails", [&] { static_cast<void>(segmenter.step(frame(2))); });
  const Result result = segmenter.step(frame(3));
  EXPECT_EQ(result.index, 0);
  EXPECT_EQ(result.decision->reason, "first frame");
}

TEST_F(Segment, ReusesTheMemoryOfAResult) {
  Segmenter segmenter = open();
  segmenter.set_queries({"dog"});
  Result result;
  segmenter.step(frame(200), result);
  const void* masks = result.masks.data();
  segmenter.step(frame(10), result);
  EXPECT_EQ(result.masks.data(), masks);
  EXPECT_EQ(result.masks[7], 0);
}

TEST_F(Segment, RefusesABundleThatTheWiringLetsPass) {
  const auto refused = [this](const char* text, auto change) {
    auto manifest = tiny::manifest();
    change(manifest["graphs"]);
    tiny::write_bundle(folder_.path(), manifest);
    const Bundle bundle = Bundle::open(folder_.path());
    expect_refused(ErrorCode::bad_bundle, text, [&] { Segmenter(bundle, tiny::make_backend(journal_), {}); });
  };
  refused("tensor 'margin'", [](auto& graphs) { graphs["gating"]["outputs"][0]["shape"][0] = 1; });
  refused("tensor 'margin'", [](auto& graphs) { graphs["gating"]["outputs"][0]["dtype"] = "uint8"; });
  refused("tensor 'lang1'", [](auto& graphs) {
    graphs["text"]["outputs"][0]["shape"][0] = 1;
    graphs["gating"]["inputs"][2]["shape"][0] = 1;
  });
  refused("tensor 'image'", [](auto& graphs) {
    graphs["backbone"]["inputs"][0]["shape"][0] = 1;
    graphs["flow_encode"]["inputs"][0]["shape"][0] = 1;
    graphs["aspp"]["outputs"][0] = graphs["backbone"]["inputs"][0];
    graphs["gating"]["inputs"].erase(1);
  });
}

TEST_F(Segment, ChangesItsSettingsBetweenFrames) {
  Segmenter segmenter = open();
  segmenter.set_queries({"dog"});
  EXPECT_EQ(segmenter.check_queries({" a  dog "}), Names{"a dog"});
  expect_refused(ErrorCode::bad_query, "query 1 has 9 tokens",
                 [&] { static_cast<void>(segmenter.check_queries({"a a a a a a a"})); });
  static_cast<void>(segmenter.step(frame(130)));
  EXPECT_EQ(segmenter.iterations(), tiny::iterations);
  segmenter.set_iterations(5);
  segmenter.set_threshold(2.5F);
  segmenter.set_keep_flow(true);
  const Result result = segmenter.step(frame(130));
  EXPECT_EQ(result.decision->iterations, 5);
  EXPECT_EQ(result.masks[0], 0);
  EXPECT_EQ(result.flow.shape(), (Shape{2, 9, 16}));
  EXPECT_EQ(segmenter.threshold(), 2.5F);
  expect_refused(ErrorCode::invalid_argument, "a threshold must be a finite number",
                 [&] { segmenter.set_threshold(std::numeric_limits<float>::quiet_NaN()); });
  expect_refused(ErrorCode::invalid_argument, "flow option 'iterations'", [&] { segmenter.set_iterations(0); });
  Segmenter without = open({}, false);
  EXPECT_EQ(without.iterations(), std::nullopt);
  expect_refused(ErrorCode::invalid_argument, "there is no flow", [&] { without.set_iterations(3); });
}

TEST_F(Segment, TakesQueriesFromAnotherThread) {
  Segmenter segmenter = open();
  segmenter.set_queries({"dog"});
  std::atomic<bool> done{false};
  std::thread other([&] {
    for (int i = 0; i < 300; ++i) {
      segmenter.set_queries(i % 2 == 0 ? Names{"the red ball", "dog"} : Names{"dog"});
      if (i % 50 == 0) {
        segmenter.reset();
      }
    }
    done = true;
  });
  std::vector<std::uint8_t> image(count({tiny::height, tiny::width, 3}), 129);
  Result result;
  int frames = 0;
  while (!done || frames < 10) {
    segmenter.step({image.data(), tiny::height, tiny::width}, result);
    ASSERT_EQ(result.masks.shape()[0], static_cast<std::int64_t>(result.queries.size()));
    ASSERT_EQ(result.margins[0], result.queries.size() == 2 ? 3 : 1);
    ++frames;
  }
  other.join();
}

TEST(Backends, AreRefusedByName) {
  const tiny::Folder folder;
  tiny::write_bundle(folder.path());
  const Bundle bundle = Bundle::open(folder.path());
  const auto refused = [&bundle](ErrorCode code, const char* text, const Options& options) {
    expect_refused(code, text, [&] { Segmenter(bundle, options); });
  };
  Options options;
  options.backend = "caffe";
  refused(ErrorCode::unsupported_backend,
          "backend 'caffe' is unknown; use onnxruntime or openvino or openvino-bf16 or tensorrt or tensorrt-rtx.",
          options);
  options.backend = "openvino";
  options.device = "cuda";
  refused(ErrorCode::unsupported_backend,
          "backend 'openvino' cannot use device 'cuda'; use device 'cpu', or another backend.", options);
  options.device = "tpu";
  refused(ErrorCode::unsupported_backend, "cannot use device 'tpu'", options);
  options.backend = "auto";
  refused(ErrorCode::unsupported_backend, "device 'tpu' is unknown", options);
  options.device = "cuda:x";
  refused(ErrorCode::unsupported_backend, "device 'cuda:x' is unknown", options);
  options.backend = "openvino";
  options.device = "cpu";
  options.threads = 0;
  refused(ErrorCode::invalid_argument, "threads must be at least 1, not 0; leave it out to use every core.", options);
}

TEST(C, ReportsInsteadOfThrowing) {
  rvos_error error;
  rvos_bundle* bundle = nullptr;
  EXPECT_EQ(rvos_bundle_open("/nowhere", 0, 0, &bundle, &error), RVOS_NOT_FOUND);
  EXPECT_EQ(bundle, nullptr);
  EXPECT_NE(std::strstr(error.message, "/nowhere is not a bundle"), nullptr);
  EXPECT_EQ(rvos_bundle_open(nullptr, 0, 0, &bundle, &error), RVOS_INVALID_ARGUMENT);
  EXPECT_EQ(rvos_bundle_open("x", 0, 0, nullptr, nullptr), RVOS_INVALID_ARGUMENT);
  const std::string endless = "/" + std::string(900, 'x') + std::string(300, '\xc3') + "\xa9";
  EXPECT_NE(rvos_bundle_open(endless.c_str(), 0, 0, &bundle, &error), RVOS_OK);
  EXPECT_LT(std::strlen(error.message), sizeof error.message);
  const tiny::Folder folder;
  tiny::write_bundle(folder.path());
  ASSERT_EQ(rvos_bundle_open(folder.path().c_str(), 0, 0, &bundle, &error), RVOS_OK) << error.message;
  int32_t height = 0;
  int32_t width = 0;
  rvos_bundle_size(bundle, &height, &width);
  EXPECT_EQ(height, tiny::height);
  EXPECT_EQ(width, tiny::width);
  rvos_segmenter* segmenter = nullptr;
  rvos_options options = {};
  EXPECT_EQ(rvos_segmenter_create(bundle, &options, &segmenter, &error), RVOS_INVALID_ARGUMENT);
  EXPECT_NE(std::strstr(error.message, "rvos_options_init"), nullptr);
  // A program of an older header, whose structure ends after `threads`, keeps the memory behind it.
  options.flow_every = -7;
  rvos_options_init_sized(&options, offsetof(rvos_options, threshold));
  EXPECT_EQ(options.flow_every, -7);
  options.backend = "caffe";
  EXPECT_EQ(rvos_segmenter_create(bundle, &options, &segmenter, &error), RVOS_UNSUPPORTED_BACKEND) << error.message;
  options.struct_size = sizeof options + 8;
  EXPECT_EQ(rvos_segmenter_create(bundle, &options, &segmenter, &error), RVOS_INVALID_ARGUMENT);
  rvos_options_init(&options);
  EXPECT_EQ(options.flow_every, 1);
  options.backend = "caffe";
  EXPECT_EQ(rvos_segmenter_create(bundle, &options, &segmenter, &error), RVOS_UNSUPPORTED_BACKEND);
  EXPECT_EQ(rvos_segmenter_set_queries(nullptr, nullptr, 0, &error), RVOS_INVALID_ARGUMENT);
  EXPECT_EQ(rvos_segmenter_reset(nullptr, nullptr), RVOS_INVALID_ARGUMENT);
  EXPECT_EQ(rvos_segmenter_set_threshold(nullptr, 0, nullptr), RVOS_INVALID_ARGUMENT);
  EXPECT_EQ(rvos_segmenter_set_iterations(nullptr, 1, nullptr), RVOS_INVALID_ARGUMENT);
  EXPECT_EQ(rvos_segmenter_set_adapt(nullptr, 1, 0, nullptr), RVOS_INVALID_ARGUMENT);
  rvos_segmenter_destroy(nullptr);
  rvos_bundle_destroy(bundle);
  rvos_result* result = rvos_result_create();
  EXPECT_EQ(rvos_result_queries(result), 0U);
  EXPECT_EQ(rvos_result_masks(result, &height, &width), nullptr);
  EXPECT_EQ(height, 0);
  EXPECT_EQ(rvos_result_presence(result), nullptr);
  EXPECT_EQ(rvos_result_adapted(result), nullptr);
  EXPECT_EQ(rvos_result_timing(result, 0, nullptr), nullptr);
  rvos_result_destroy(result);
}

}  // namespace

// The TensorRT backend without a GPU, on a tiny bundle: its masks are those of OpenVINO, which runs the fake
// engines. Compiled twice, for TensorRT and for TensorRT-RTX.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "fakes.hpp"
#include "rvos_edge/segmenter.hpp"
#include "sha256.hpp"

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using rvos_edge::Bundle;
using rvos_edge::Segmenter;

#ifdef RVOS_EDGE_WITH_TENSORRT_RTX
const std::string flavour = "tensorrt-rtx";
const std::string version = "1.7.1";
const std::string product = "TensorRT-RTX 1.7.1";
#else
const std::string flavour = "tensorrt";
const std::string version = "10.3.0";
const std::string product = "TensorRT 10.3.0";
#endif

constexpr int height = 288;
constexpr int width = 512;

/// A copy of the tiny bundle, with an engine for every graph but the text.
class TensorRt : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("rvos-edge-" + flavour + "-" + std::to_string(getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_ / "engines");
    for (const auto& file : fs::directory_iterator(RVOS_EDGE_TEST_BUNDLE)) {
      if (file.path().filename() != "engines") {
        fs::copy(file.path(), folder_ / file.path().filename());
      }
    }
    const Bundle bundle = Bundle::open(folder_);
    for (const auto& [name, spec] : bundle.manifest().graphs) {
      if (name != "text") {
        write_engine(bundle, name, spec);
      }
    }
    fakes::set_devices(1);
    fakes::refuse_capture(false);
    fakes::refuse_memory_size(false);
    fakes::forget_calls();
  }

  void TearDown() override { fs::remove_all(folder_); }

  void write_engine(const Bundle& bundle, const std::string& name, const rvos_edge::GraphSpec& spec,
                    const std::string& gpu = "Fake Orin", const std::string& mark = "") {
    const fs::path entry = folder_ / "engines" / ("of-" + name);
    fs::create_directories(entry);
    const std::string plan = bundle.graph_path(name).string() + mark;
    std::ofstream(entry / (name + ".engine")) << plan;
    Json shapes = Json::object();
    for (const auto& tensor : spec.inputs) {
      Json shape = Json::array();
      for (const auto& dim : tensor.shape) {
        shape.push_back(dim.symbol.empty() ? Json(dim.extent) : Json(dim.symbol));
      }
      shapes[tensor.name] = shape;
    }
    const char* precisions[] = {"float32", "float16", "bfloat16", "int8"};
    const Json key = {{"graph", name},
                      {"onnx_sha256", spec.sha256},
                      {"flavour", flavour},
                      {"version", version + ".26"},
                      {"gpu", gpu},
                      {"capabilities", {"87"}},
                      {"shapes", shapes},
                      {"max_queries", bundle.manifest().max_queries},
                      {"precision", precisions[static_cast<int>(spec.precision)]}};
    std::ofstream(entry / "key.json") << Json{{"key", key}, {"sha256", rvos_edge::sha256_of(plan)}};
  }

  [[nodiscard]] Segmenter open(const std::string& backend, rvos_edge::FlowOptions flow = {},
                               const std::string& device = "auto") const {
    rvos_edge::Options options;
    options.backend = backend;
    options.device = device;
    options.flow = flow;
    return Segmenter(Bundle::open(folder_), options);
  }

  [[nodiscard]] std::string refusal() const {
    try {
      static_cast<void>(open(flavour));
    } catch (const rvos_edge::UserError& error) {
      return error.what();
    }
    return "";
  }

  fs::path folder_;
};

/// A disc that moves over a pattern.
std::vector<std::uint8_t> draw(int t) {
  std::vector<std::uint8_t> image(static_cast<std::size_t>(height) * width * 3);
  std::size_t at = 0;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      const bool inside = std::hypot(x - 150 - 4 * t, y - 140) < 60;
      for (int c = 0; c < 3; ++c) {
        image[at++] = static_cast<std::uint8_t>(inside ? (c == 2 ? 220 : 40) : 90 + (x / 8 + y / 8 + c) % 7 * 15);
      }
    }
  }
  return image;
}

void expect_equal(const rvos_edge::Result& found, const rvos_edge::Result& expected) {
  ASSERT_EQ(found.margins.shape(), expected.margins.shape());
  float worst = 0;
  for (std::size_t i = 0; i < expected.margins.size(); ++i) {
    worst = std::max(worst, std::abs(found.margins[i] - expected.margins[i]));
  }
  EXPECT_LT(worst, 1e-3F);
  EXPECT_EQ(found.flow_used, expected.flow_used);
  EXPECT_EQ(found.index, expected.index);
}

long count_calls(const std::string& call) {
  return std::count(fakes::calls().begin(), fakes::calls().end(), call);
}

TEST_F(TensorRt, GivesTheMasksOfOpenVinoAndReplaysFrames) {
  {
    Segmenter expected = open("openvino");
    Segmenter found = open(flavour);
    EXPECT_EQ(found.backend_name(), product + " (Fake Orin)");
    for (Segmenter* segmenter : {&expected, &found}) {
      segmenter->set_queries({"the red ball"});
    }
    for (int t = 0; t < 9; ++t) {
      if (t == 7) {
        for (Segmenter* segmenter : {&expected, &found}) {
          segmenter->set_queries({"a dog", "the red ball"});
        }
      }
      const auto image = draw(t);
      fakes::forget_calls();
      const rvos_edge::Result result = found.step({image.data(), height, width});
      expect_equal(result, expected.step({image.data(), height, width}));
      if (t == 6) {
        // Three updates restore the buffers on every second frame: from the third of these on, frames are replayed.
        EXPECT_EQ(fakes::calls(), std::vector<std::string>{"launch"});
        ASSERT_EQ(result.timings.size(), 3U);
        EXPECT_EQ(result.timings[1].stage, "graph");
      }
      if (t == 7) {
        // The buffers are new: the frame runs plainly again.
        EXPECT_EQ(count_calls("launch"), 0);
        EXPECT_EQ(count_calls("execute gating"), 1);
      }
    }
    EXPECT_EQ(found.backend_reason(), flavour + " was requested");
  }
  EXPECT_EQ(fakes::held(), 0);
}

TEST_F(TensorRt, UsesAnotherGpuAndLeavesTheCallersCurrent) {
  fakes::set_devices(2);
  {
    Segmenter expected = open("openvino");
    Segmenter found = open(flavour, {}, "cuda:1");
    for (Segmenter* segmenter : {&expected, &found}) {
      segmenter->set_queries({"the red ball"});
    }
    for (int t = 0; t < 6; ++t) {
      const auto image = draw(t);
      expect_equal(found.step({image.data(), height, width}), expected.step({image.data(), height, width}));
      EXPECT_EQ(fakes::current_device(), 0);
    }
    EXPECT_GT(count_calls("launch"), 0);
    EXPECT_EQ(found.backend_reason(), flavour + " was requested");
  }
  EXPECT_EQ(fakes::held(), 0);
  EXPECT_THROW(static_cast<void>(open(flavour, {}, "cuda:2")), rvos_edge::UserError);
}

TEST_F(TensorRt, GoesOnPlainlyWhereACaptureFails) {
  fakes::refuse_capture(true);
  Segmenter expected = open("openvino");
  Segmenter found = open(flavour);
  for (Segmenter* segmenter : {&expected, &found}) {
    segmenter->set_queries({"the red ball"});
  }
  for (int t = 0; t < 5; ++t) {
    const auto image = draw(t);
    expect_equal(found.step({image.data(), height, width}), expected.step({image.data(), height, width}));
  }
  EXPECT_EQ(count_calls("capture"), 1);
  EXPECT_EQ(count_calls("launch"), 0);
  EXPECT_NE(found.backend_reason().find("without CUDA graphs (CUDA: cudaStreamEndCapture failed"), std::string::npos);
}

TEST_F(TensorRt, TimesEveryStageWhereARateIsHeld) {
  rvos_edge::FlowOptions flow;
  flow.hold_fps = 1.0;
  Segmenter segmenter = open(flavour, flow);
  segmenter.set_queries({"the red ball"});
  rvos_edge::Result result;
  for (int t = 0; t < 4; ++t) {
    const auto image = draw(t);
    segmenter.step({image.data(), height, width}, result);
  }
  EXPECT_EQ(count_calls("capture"), 0);
  const auto stage = std::find_if(result.timings.begin(), result.timings.end(),
                                  [](const rvos_edge::Timing& timing) { return timing.stage == "gating"; });
  ASSERT_NE(stage, result.timings.end());
  EXPECT_GT(stage->milliseconds, 0);
}

TEST_F(TensorRt, SaysWhatIsMissing) {
  const std::string bundle = folder_.string();
  const Bundle opened = Bundle::open(folder_);
  write_engine(opened, "gating", opened.manifest().graph("gating"), "Another GPU");
  EXPECT_EQ(refusal(), bundle +
                           ": the engine of graph 'gating' was made for GPU Another GPU and not Fake Orin; run: "
                           "rvos-edge build " +
                           bundle + " --target " + flavour);
  write_engine(opened, "gating", opened.manifest().graph("gating"), "");
  EXPECT_EQ(refusal(), "");
  std::ofstream(folder_ / "engines/of-gating/gating.engine") << "changed";
  EXPECT_NE(refusal().find("the engine of graph 'gating' is damaged; run:"), std::string::npos);
  fs::remove_all(folder_ / "engines");
  EXPECT_NE(refusal().find(": there is no engine of graph '"), std::string::npos);
  fakes::set_devices(0);
  EXPECT_EQ(refusal(), "CUDA: cudaGetDeviceCount failed with cudaErrorNoDevice (no CUDA-capable device is detected); "
                       "use a machine with an NVIDIA GPU and its driver, or device 'cpu'.");
}

TEST_F(TensorRt, ReportsAFailedMemorySize) {
  fakes::refuse_memory_size(true);
  Segmenter segmenter = open(flavour);
  segmenter.set_queries({"the red ball"});
  const auto image = draw(0);
  try {
    static_cast<void>(segmenter.step({image.data(), height, width}));
    ADD_FAILURE() << "the error was taken for an engine without scratch memory";
  } catch (const rvos_edge::UserError& error) {
    EXPECT_NE(std::string(error.what()).find("does not tell its scratch memory (backbone: the shapes"),
              std::string::npos)
        << error.what();
  }
}

#ifdef RVOS_EDGE_WITH_TENSORRT_RTX
TEST_F(TensorRt, KeepsCompiledKernels) {
  for (const long compiled : {1L, 0L}) {
    fakes::forget_calls();
    Segmenter segmenter = open(flavour);
    segmenter.set_queries({"the red ball"});
    for (int t = 0; t < 2; ++t) {
      const auto image = draw(t);
      static_cast<void>(segmenter.step({image.data(), height, width}));
    }
    EXPECT_EQ(count_calls("compile gating"), compiled);
    EXPECT_EQ(count_calls("compile flow_step"), compiled);
  }
  EXPECT_TRUE(fs::is_regular_file(folder_ / "engines/of-gating/gating.runtime-cache"));
  std::ofstream(folder_ / "engines/of-gating/gating.runtime-cache") << "of another version";
  Segmenter segmenter = open(flavour);
  segmenter.set_queries({"the red ball"});
  const auto image = draw(0);
  EXPECT_EQ(segmenter.step({image.data(), height, width}).index, 0);
}

TEST_F(TensorRt, DoesNotCaptureEnginesThatAllocate) {
  const Bundle opened = Bundle::open(folder_);
  write_engine(opened, "gating", opened.manifest().graph("gating"), "Fake Orin", " runtime_allocation");
  Segmenter segmenter = open(flavour);
  segmenter.set_queries({"the red ball"});
  for (int t = 0; t < 5; ++t) {
    const auto image = draw(t);
    static_cast<void>(segmenter.step({image.data(), height, width}));
  }
  EXPECT_EQ(count_calls("capture"), 0);
  EXPECT_NE(segmenter.backend_reason().find("gating.engine cannot be part of a CUDA graph"), std::string::npos);
}
#endif

TEST_F(TensorRt, FallsBackToTheCpu) {
  fs::remove_all(folder_ / "engines");
  const Segmenter segmenter = open("auto");
  EXPECT_NE(segmenter.backend_name().find("OpenVINO"), std::string::npos);
  EXPECT_EQ(segmenter.backend_reason().rfind(flavour + " cannot be used (", 0), 0U);
}

}  // namespace

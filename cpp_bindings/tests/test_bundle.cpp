// The bundle and the board. tests/cpp_bindings/test_bundles.py compares what is refused with Python.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>

#include "expect.hpp"
#include "half.hpp"
#include "manifest.hpp"
#include "rvos_edge/engine.hpp"
#include "sha256.hpp"
#include "tiny.hpp"

namespace {

using namespace rvos_edge;
using tiny::expect_refused;

TEST(Sha256, KnowsThePublishedVectors) {
  EXPECT_EQ(sha256_of(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_of(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, TakesItInPiecesOfAnyLength) {
  const std::string text(300, 'x');
  for (std::size_t cut = 0; cut <= text.size(); cut += 7) {
    Sha256 hash;
    hash.update(text.data(), cut);
    hash.update(text.data() + cut, text.size() - cut);
    EXPECT_EQ(hash.hex(), sha256_of(text));
  }
}

TEST(Half, GoesThroughEveryValue) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float value = half_to_float(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(half_to_float(float_to_half(value))));
    } else {
      EXPECT_EQ(float_to_half(value), half);
    }
  }
}

TEST(Half, RoundsToTheNearestAndTiesToEven) {
  EXPECT_EQ(half_to_float(float_to_half(1.0F + 0x1p-11F)), 1.0F);
  EXPECT_EQ(half_to_float(float_to_half(1.0F + 0x1.8p-10F)), 1.0F + 0x1p-9F);
  EXPECT_EQ(half_to_float(float_to_half(65519.0F)), 65504.0F);
  EXPECT_TRUE(std::isinf(half_to_float(float_to_half(65520.0F))));
  EXPECT_EQ(float_to_half(0x1p-26F), 0);
  EXPECT_EQ(half_to_float(float_to_half(0x1.8p-24F)), 0x1p-23F);
}

class OpenBundle : public testing::Test {
 protected:
  tiny::Folder folder_;
};

TEST_F(OpenBundle, ReadsTheManifest) {
  tiny::write_bundle(folder_.path());
  const Bundle bundle = Bundle::open(folder_.path());
  const Manifest& manifest = bundle.manifest();
  EXPECT_EQ(manifest.size, (Size{tiny::height, tiny::width}));
  EXPECT_EQ(manifest.flow->iterations, tiny::iterations);
  EXPECT_EQ(manifest.vision_graphs(), (std::vector<std::string>{"backbone", "aspp"}));
  EXPECT_EQ(manifest.graph("gating").outputs.front().shape.front().symbol, "Q");
  EXPECT_EQ(manifest.find("vision"), nullptr);
  EXPECT_THROW(static_cast<void>(manifest.graph("vision")), std::out_of_range);
  EXPECT_EQ(bundle.fingerprint().size(), 64U);
  EXPECT_FALSE(manifest.allows_bfloat16());
}

TEST_F(OpenBundle, RefusesWhatIsMissingOrDamaged) {
  expect_refused(ErrorCode::not_found, "is not a bundle: it has no manifest.json",
                 [&] { static_cast<void>(Bundle::open(folder_.path())); });
  tiny::write_bundle(folder_.path());
  expect_refused(ErrorCode::not_found, "has no graphs for 32x32; it was exported for 36x64.", [&] {
    static_cast<void>(Bundle::open(folder_.path(), Size{32, 32}));
  });
  tiny::write_file(folder_.path() / "aspp.onnx", "changed");
  expect_refused(ErrorCode::bad_bundle, "aspp.onnx does not match its sha256 in manifest.json: it is damaged",
                 [&] { static_cast<void>(Bundle::open(folder_.path())); });
  std::filesystem::remove(folder_.path() / "aspp.onnx");
  expect_refused(ErrorCode::not_found, "graph 'aspp' (aspp.onnx) is missing",
                 [&] { static_cast<void>(Bundle::open(folder_.path())); });
}

TEST_F(OpenBundle, RefusesANameThatLeavesTheFolder) {
  for (const char* name : {"../aspp.onnx", "/etc/hostname", "a/../../aspp.onnx"}) {
    auto manifest = tiny::manifest();
    manifest["graphs"]["aspp"]["file"] = name;
    tiny::write_bundle(folder_.path(), manifest);
    expect_refused(ErrorCode::bad_bundle, "graph 'aspp' names a file outside the bundle; do not use",
                   [&] { static_cast<void>(Bundle::open(folder_.path())); });
  }
}

TEST_F(OpenBundle, RefusesWiresThatEndNowhere) {
  auto manifest = tiny::manifest();
  manifest["graphs"]["aspp"]["inputs"][0]["name"] = "c9";
  tiny::write_bundle(folder_.path(), manifest);
  expect_refused(ErrorCode::bad_bundle, "input 'c9' of graph 'aspp' is fed by nothing; export it again.",
                 [&] { static_cast<void>(Bundle::open(folder_.path())); });
}

TEST(Manifests, NamesTheFirstThingThatIsWrong) {
  auto manifest = tiny::manifest();
  manifest["graphs"]["aspp"]["inputs"][0]["dtype"] = "float64";
  expect_refused(ErrorCode::bad_bundle,
                 "a/manifest.json: 'graphs.aspp.inputs.0.dtype' is not a known value; export the bundle again.",
                 [&] { static_cast<void>(parse_manifest(manifest.dump(), "a//manifest.json")); });
  for (const char* text : {"{", "", "[1e99999]", "\xff"}) {
    expect_refused(ErrorCode::bad_bundle, "m is not readable JSON; export",
                   [text] { static_cast<void>(parse_manifest(text, "m")); });
  }
}

class Hostile : public OpenBundle {
 protected:
  /// Write a bundle with one field changed, and expect it to be refused.
  void refused(ErrorCode code, const std::string& text, const std::function<void(tiny::Json&)>& change) {
    auto manifest = tiny::manifest();
    change(manifest);
    tiny::write_bundle(folder_.path(), manifest);
    expect_open_refused(code, text);
  }

  void expect_open_refused(ErrorCode code, const std::string& text) {
    expect_refused(code, text, [&] { static_cast<void>(Bundle::open(folder_.path())); });
  }

  /// Replace a graph's file and its hash.
  void write_graph(const std::string& bytes) {
    auto manifest = tiny::manifest();
    manifest["graphs"]["aspp"]["sha256"] = sha256_of(bytes);
    tiny::write_bundle(folder_.path(), manifest);
    tiny::write_file(folder_.path() / "aspp.onnx", bytes);
  }
};

TEST_F(Hostile, ManifestsAreRefusedInOneSentence) {
  const auto bad = ErrorCode::bad_bundle;
  refused(bad, "'flow.iterations' must be an integer from 1 to", [](auto& m) { m["flow"]["iterations"] = 2000000000; });
  refused(bad, "'text.max_tokens' must be an integer from 3 to", [](auto& m) { m["text"]["max_tokens"] = 2000000000; });
  refused(bad, "'max_queries' must be an integer from 1 to", [](auto& m) { m["max_queries"] = UINT64_MAX; });
  refused(bad, "'stride' must be an integer", [](auto& m) { m["stride"] = 4.5; });
  refused(bad, "'size' must be [height, width]", [](auto& m) { m["size"] = {64}; });
  refused(bad, "names a file outside the bundle",
          [](auto& m) { m["text"]["tokenizer"] = std::string("tokenizer.json\0/x", 17); });
  const auto with = [this](const std::string& value) {
    std::string text = tiny::manifest().dump();
    text.insert(1, "\"checkpoint\":" + value + ",");
    tiny::write_file(folder_.path() / "manifest.json", text);
  };
  with(std::string(100000, '[') + std::string(100000, ']'));
  expect_open_refused(bad, "manifest.json is nested too deeply; export the bundle again.");
  with(std::string(6000, '9'));
  expect_open_refused(bad, "manifest.json is not readable JSON; export the bundle again.");
  refused(bad, "'format_version' must be an integer", [](auto& m) { m["format_version"] = {{"a", 1}}; });
}

TEST_F(Hostile, LinksToThemselvesAreRefused) {
  tiny::write_bundle(folder_.path());
  for (const char* name : {"aspp.onnx", "manifest.json"}) {
    std::filesystem::remove(folder_.path() / name);
    std::filesystem::create_symlink(name, folder_.path() / name);
  }
  expect_open_refused(ErrorCode::not_found, "it has no manifest.json");
  std::filesystem::remove(folder_.path() / "manifest.json");
  tiny::write_file(folder_.path() / "manifest.json", tiny::manifest().dump());
  expect_open_refused(ErrorCode::bad_bundle, "graph 'aspp' names a file outside the bundle");
}

TEST_F(Hostile, NamesThatAreNotUtf8AreRefused) {
  for (const char* name : {"b\xff", "b\xc3"}) {
    const auto folder = folder_.path() / name;
    std::filesystem::create_directory(folder);
    tiny::write_bundle(folder);
    expect_refused(ErrorCode::invalid_argument, "/b\xef\xbf\xbd is not a name in UTF-8; rename the folder.",
                   [&] { static_cast<void>(Bundle::open(folder)); });
  }
}

TEST_F(Hostile, GraphsBringNoOtherFiles) {
  // ir_version, then graph { initializer { external_data { key: "location" } } }, also with padded varints.
  const std::string plain("\x08\x08\x3a\x0e\x2a\x0c\x6a\x0a\x0a\x08location", 18);
  const std::string padded("\x08\x08\x3a\x11\x2a\x0f\x6a\x0d\x8a\x00\x88\x80\x00location", 21);
  for (const std::string& bytes : {plain, padded}) {
    write_graph(bytes);
    expect_open_refused(ErrorCode::bad_bundle, "aspp.onnx keeps weights in another file, which has no hash");
  }
  // OpenVINO recognises its own format by its content, and loads the .bin beside it.
  for (const char* bytes : {"<net name=\"x\" version=\"11\"></net>", "\x3a"}) {
    write_graph(bytes);
    expect_open_refused(ErrorCode::bad_bundle, "aspp.onnx is not an ONNX file; export the bundle again.");
  }
  write_graph("\x08\x08\x3a\x0c\x2a\x0a\x42\x08location");  // a tensor of that name
  EXPECT_NO_THROW(static_cast<void>(Bundle::open(folder_.path())));
}

Board make_board() {
  return Board([](DType dtype, const Shape& shape) { return std::make_shared<HostBuffer>(dtype, shape); });
}

TEST(Boards, SwapByPointerAndKeepSlotsInPlace) {
  Board board = make_board();
  board.declare({"a", DType::float32, {{2, {}}}});
  board.declare({"b", DType::float32, {{2, {}}}});
  const Board::Slot& slot = board.slot("a");
  const void* address = board.buffer("a").address();
  const float values[2] = {1, 2};
  board.write("a", values, DType::float32, {2});
  board.swap("a", "b");
  EXPECT_EQ(board.buffer("b").address(), address);
  EXPECT_EQ(&board.slot("a"), &slot);
  float read[2] = {};
  board.read_float("b", read);
  EXPECT_EQ(read[1], 2);
  board.copy("b", "a");
  board.zero("b");
  board.read_float("a", read);
  EXPECT_EQ(read[0], 1);
  const auto arrangement = board.arrangement();
  board.swap("a", "b");
  board.arrange(arrangement);
  EXPECT_EQ(board.buffer("b").address(), address);
  EXPECT_EQ(board.buffers().size(), 2U);
}

TEST(Boards, ResizeWhatHasTheSymbolAlone) {
  Board board = make_board();
  board.declare({"q", DType::float16, {{0, "Q"}, {3, {}}}});
  board.declare({"fixed", DType::int64, {{3, {}}}});
  const void* fixed = board.buffer("fixed").address();
  EXPECT_EQ(board.shape("q"), (Shape{1, 3}));
  board.resize("Q", 4);
  EXPECT_EQ(board.shape("q"), (Shape{4, 3}));
  EXPECT_EQ(board.buffer("fixed").address(), fixed);
  const std::vector<float> values(12, 0.5F);
  board.write("q", values.data(), DType::float32, {4, 3});
  std::vector<float> read(12);
  board.read_float("q", read.data());
  EXPECT_EQ(read, values);
  board.declare({"late", DType::uint8, {{0, "Q"}}});
  EXPECT_EQ(board.shape("late"), (Shape{4}));
}

TEST(Boards, RefuseWhatDoesNotFit) {
  Board board = make_board();
  board.declare({"a", DType::float32, {{2, {}}}});
  board.declare({"b", DType::uint8, {{2, {}}}});
  const std::uint8_t bytes[2] = {};
  float read[2];
  EXPECT_THROW(board.swap("a", "b"), std::invalid_argument);
  EXPECT_THROW(board.copy("a", "b"), std::invalid_argument);
  EXPECT_THROW(board.write("a", bytes, DType::uint8, {2}), std::invalid_argument);
  EXPECT_THROW(board.write("b", bytes, DType::uint8, {3}), std::invalid_argument);
  EXPECT_THROW(board.read_float("b", read), std::invalid_argument);
  EXPECT_THROW(board.declare({"a", DType::float32, {{3, {}}}}), std::invalid_argument);
  EXPECT_THROW(board.zero("c"), std::out_of_range);
  for (const std::int64_t extent : {std::int64_t{0}, std::int64_t{-3}, std::numeric_limits<std::int64_t>::max()}) {
    expect_refused(ErrorCode::bad_bundle, "tensor 'huge' has an extent of", [&] {
      board.declare({"huge", DType::float32, {{1 << 20, {}}, {extent, {}}}});
    });
  }
}

}  // namespace

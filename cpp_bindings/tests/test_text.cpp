// Tokens, queries and their cache. The tokenizer is compared with its model by tests/cpp_bindings/test_tokens.py.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>

#include "expect.hpp"
#include "npz.hpp"
#include "rvos_edge/segmenter.hpp"
#include "text.hpp"
#include "tiny.hpp"
#include "unicode.hpp"

namespace {

using namespace rvos_edge;
using tiny::expect_refused;
using Ids = std::vector<std::int64_t>;

TEST(Tokens, AreLongestPieces) {
  const Tokenizer tokenizer(parse_tokenizer(tiny::tokenizer()));
  EXPECT_EQ(tokenizer.encode(U"The red, dogs"), (Ids{2, 5, 6, 1, 8, 9, 3}));
  EXPECT_EQ(tokenizer.encode(U"caf\u00e9 cafe\u0301"), (Ids{2, 10, 11, 10, 11, 3}));
  EXPECT_EQ(tokenizer.encode(U"dogsx"), (Ids{2, 1, 3}));
  EXPECT_EQ(tokenizer.encode(U""), (Ids{2, 3}));
  EXPECT_EQ(tokenizer.encode(std::u32string(101, U'a')), (Ids{2, 1, 3}));
}

TEST(Tokens, SayWhatIsNotRead) {
  auto document = tiny::Json::parse(tiny::tokenizer());
  const auto message = [&document] {
    try {
      static_cast<void>(parse_tokenizer(document.dump()));
      return std::string();
    } catch (const std::runtime_error& error) {
      return std::string(error.what());
    }
  };
  EXPECT_EQ(message(), "");
  document["pre_tokenizer"]["type"] = "Whitespace";
  EXPECT_EQ(message(), "its pre-tokenizer 'Whitespace' is not read here, only BertPreTokenizer is");
  document["normalizer"]["type"] = "NFKC";
  EXPECT_EQ(message(), "its normalizer 'NFKC' is not read here, only BertNormalizer is");
  document = tiny::Json::array();
  EXPECT_EQ(message(), "it is not a JSON object");
}

TEST(Utf8, KeepsBadBytesApart) {
  EXPECT_EQ(decode_utf8("a\xc3\xa9\xf0\x9f\x90\xb6"), U"a\u00e9\U0001f436");
  for (const char* bad : {"\xff", "\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82"}) {
    EXPECT_FALSE(is_valid(decode_utf8(bad))) << bad;
  }
  const std::u32string all = U"\u007f\u0080\u07ff\u0800\uffff\U00010000\U0010ffff";
  EXPECT_EQ(decode_utf8(encode_utf8(all)), all);
}

TEST(Queries, AreNormalisedOrRefused) {
  EXPECT_EQ(check_queries({" the \t red\u3000ball\n"}), std::vector<std::string>{"the red ball"});
  expect_refused(ErrorCode::bad_query, "there is no query; give at least one",
                 [] { static_cast<void>(check_queries({})); });
  expect_refused(ErrorCode::bad_query, "query 2 is empty; describe an object", [] {
    static_cast<void>(check_queries({"a", " "}));
  });
  expect_refused(ErrorCode::bad_query, "has a word of 101 characters and at most 100 are read; shorten it.",
                 [] { static_cast<void>(check_queries({std::string(101, 'x')})); });
  expect_refused(ErrorCode::bad_query, "query 'a \\udcff dog' is not valid Unicode; type it anew.",
                 [] { static_cast<void>(check_queries({"a \xff dog"})); });
}

class Encode : public testing::Test {
 protected:
  void SetUp() override { tiny::write_bundle(folder_.path()); }

  TextEncoder make(const std::optional<std::filesystem::path>& cache = std::nullopt,
                   TextEncoder::Limits limits = TextEncoder::Limits()) {
    const Bundle bundle = Bundle::open(folder_.path());
    return {bundle, tiny::make_backend(journal_)->load_host("", bundle.manifest().graph("text")), cache, limits};
  }

  static std::vector<float> values(const HostTensor& tensor) {
    std::vector<float> found(count(tensor.shape));
    std::memcpy(found.data(), tensor.data.data(), tensor.data.size());
    return found;
  }

  std::size_t files() const {
    std::size_t found = 0;
    for (const auto& entry : std::filesystem::directory_iterator(cache())) {
      found += entry.path().extension() == ".npz" ? 1U : 100U;
    }
    return found;
  }

  std::filesystem::path cache() const { return folder_.path() / "cache" / "text"; }

  tiny::Folder folder_;
  tiny::Journal journal_;
};

TEST_F(Encode, StacksInTheOrderOfTheQueries) {
  TextEncoder encoder = make();
  const auto vectors = encoder.encode({"red", "the red ball", "red"});
  ASSERT_EQ(vectors.size(), 1U);
  EXPECT_EQ(vectors[0].shape, (Shape{3, 2}));
  EXPECT_EQ(values(vectors[0]), (std::vector<float>{1, 1, 3, 1, 1, 1}));
  EXPECT_EQ(journal_.texts, 2);
}

TEST_F(Encode, ForgetsTheLeastRecentlyUsed) {
  TextEncoder encoder = make(std::nullopt, {2, 1});
  for (const char* query : {"a dog", "a ball", "a dog", "red", "a dog"}) {
    static_cast<void>(encoder.encode({query}));
  }
  EXPECT_EQ(journal_.texts, 3);
  static_cast<void>(encoder.encode({"a ball"}));
  EXPECT_EQ(journal_.texts, 4);
}

TEST_F(Encode, RemembersOnDisk) {
  static_cast<void>(make(cache()).encode({"the dog"}));
  EXPECT_EQ(values(make(cache()).encode({"the dog"})[0]), (std::vector<float>{2, 1}));
  EXPECT_EQ(journal_.texts, 1);
  EXPECT_EQ(files(), 1U);
  for (const auto& entry : std::filesystem::directory_iterator(cache())) {
    tiny::write_file(entry.path(), "damaged");
  }
  EXPECT_EQ(values(make(cache()).encode({"the dog"})[0]), (std::vector<float>{2, 1}));
  EXPECT_EQ(journal_.texts, 2);
}

TEST_F(Encode, BoundsTheDisk) {
  TextEncoder encoder = make(cache(), {100, 4});
  for (const char* query : {"a", "the", "red", "ball", "dog", "a dog", "a ball"}) {
    static_cast<void>(encoder.encode({query}));
    EXPECT_LE(files(), 4U);
  }
}

TEST_F(Encode, DoesWithoutADiskThatCannotBeWritten) {
  tiny::write_file(folder_.path() / "cache", "a file where a folder should be");
  EXPECT_EQ(values(make(cache()).encode({"the dog"})[0]), (std::vector<float>{2, 1}));
}

TEST_F(Encode, RefusesWhatIsTooLong) {
  TextEncoder encoder = make();
  expect_refused(ErrorCode::bad_query, "has 9 tokens and this bundle takes at most 8; shorten it.",
                 [&] { static_cast<void>(encoder.encode({"a a a a a a a"})); });
}

TEST(Archives, AreReadAsTheyWereWritten) {
  HostTensor array{"x", DType::float32, {2, 1}, std::vector<std::byte>(8, std::byte{7})};
  HostTensor scalar{"y", DType::uint8, {}, std::vector<std::byte>(1, std::byte{9})};
  const std::string bytes = write_npz({array, scalar});
  const auto read = read_npz(bytes);
  ASSERT_TRUE(read.has_value());
  ASSERT_EQ(read->size(), 2U);
  EXPECT_EQ((*read)[0].shape, array.shape);
  EXPECT_EQ((*read)[0].data, array.data);
  EXPECT_EQ((*read)[1].shape, Shape{});
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_FALSE(read_npz(bytes.substr(0, length)).has_value());
  }
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    std::string flipped = bytes;
    flipped[at] = static_cast<char>(flipped[at] ^ 0x40);
    static_cast<void>(read_npz(flipped));  // nothing to expect but that the sanitizers stay quiet
  }
}

}  // namespace

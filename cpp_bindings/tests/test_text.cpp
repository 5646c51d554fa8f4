// Tokens and queries. tests/cpp_bindings/test_tokens.py compares the token ids with Python's.
#include <gtest/gtest.h>

#include <cstring>

#include "expect.hpp"
#include "rvos_edge/language.hpp"
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
  EXPECT_EQ(tokenizer.encode(U"cafe\tDOG [SEP]"), (Ids{2, 10, 11, 8, 1, 1, 1, 3}));
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
  EXPECT_EQ(message(), "its pre-tokenizer 'Whitespace' is not supported, use BertPreTokenizer");
  document["normalizer"]["type"] = "NFKC";
  EXPECT_EQ(message(), "its normalizer 'NFKC' is not supported, use BertNormalizer");
  document = tiny::Json::parse(tiny::tokenizer());
  document["added_tokens"] = tiny::Json::parse(R"([{"content": "blue", "id": 4, "special": false}])");
  EXPECT_EQ(message(), "it has added tokens, which are not supported");
  document = tiny::Json::array();
  EXPECT_EQ(message(), "it is not a JSON object");
  for (int i = 0; i < 1000; ++i) {
    document = tiny::Json::array({document});
  }
  EXPECT_EQ(message(), "it is nested too deeply");
  document = tiny::Json::parse(tiny::tokenizer());
  for (const char* id : {"-1", "1.5", "18446744073709551615"}) {
    document["model"]["vocab"]["dog"] = tiny::Json::parse(id);
    EXPECT_EQ(message(), "a token id is not an integer from 0 to 2147483647");
  }
}

TEST(Utf8, ReplacesInvalidBytes) {
  EXPECT_EQ(decode_utf8("a\xc3\xa9\xf0\x9f\x90\xb6"), U"a\u00e9\U0001f436");
  for (const char* bad : {"\xff", "\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82"}) {
    EXPECT_EQ(decode_utf8(bad).front(), U'\uFFFD') << bad;
  }
  const std::u32string all = U"\u007f\u0080\u07ff\u0800\uffff\U00010000\U0010ffff";
  EXPECT_EQ(decode_utf8(encode_utf8(all)), all);
}

TEST(Queries, OfOtherLanguagesAreDoubted) {
  for (const char* query : {"le chien rouge", "der rote Ball auf dem Tisch", "perro con una bola"}) {
    EXPECT_EQ(query_doubt(query).find("'" + std::string(query) + "' does not look like English"), 0U) << query;
  }
  for (const char* query : {"the dog on the left", "a die on the table", "dog", "", "@le_un.query", "{\"le un\": 1}"}) {
    EXPECT_EQ(query_doubt(query), "") << query;
  }
}

TEST(Queries, AreNormalisedOrRefused) {
  EXPECT_EQ(check_queries({" the \t red\u3000ball\n"}), std::vector<std::string>{"the red ball"});
  EXPECT_EQ(check_queries({"the man\u2019s dog"}), std::vector<std::string>{"the man\u2019s dog"});
  const auto refused = [](const char* text, const std::vector<std::string>& queries) {
    expect_refused(ErrorCode::bad_query, text, [&] { static_cast<void>(check_queries(queries)); });
  };
  refused("there is no query; give at least one", {});
  refused("query 2 is empty; describe an object", {"a", " "});
  refused("has a word of 101 characters and at most 100 are read; shorten it.", {std::string(101, 'x')});
  refused("query 1 has the character U+FFFD; write it in English, in plain Latin letters.", {"a \xff dog"});
  refused("query 1 has the character U+72D7", {"the \u72d7"});
}

class Encode : public testing::Test {
 protected:
  void SetUp() override { tiny::write_bundle(folder_.path()); }

  TextEncoder make(std::size_t entries = 100) {
    const Bundle bundle = Bundle::open(folder_.path());
    return {bundle, tiny::make_backend(journal_)->load_host(bundle.graph_path("text"), bundle.manifest().graph("text")),
            entries};
  }

  static std::vector<float> values(const HostTensor& tensor) {
    std::vector<float> found(count(tensor.shape));
    std::memcpy(found.data(), tensor.data.data(), tensor.data.size());
    return found;
  }

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
  TextEncoder encoder = make(2);
  for (const char* query : {"a dog", "a ball", "a dog", "red", "a dog"}) {
    static_cast<void>(encoder.encode({query}));
  }
  EXPECT_EQ(journal_.texts, 3);
  static_cast<void>(encoder.encode({"a ball"}));
  EXPECT_EQ(journal_.texts, 4);
}

TEST_F(Encode, RefusesWhatIsTooLong) {
  TextEncoder encoder = make();
  expect_refused(ErrorCode::bad_query, "query 2 has 9 tokens and this bundle takes at most 8; shorten it.", [&] {
    static_cast<void>(encoder.encode({"a", "a a a a a a a"}));
  });
}

}  // namespace

// A query settles on what it sees, only where it is sure, and lets go again.
#include <gtest/gtest.h>

#include <thread>

#include "adaptation.hpp"
#include "tiny.hpp"

namespace {

using namespace rvos_edge;

class Settle : public testing::Test {
 protected:
  Settle() {
    tiny::write_bundle(folder_.path(), tiny::manifest_that_learns());
    bundle_.emplace(Bundle::open(folder_.path()));
    backend_ = tiny::make_backend(journal_);
    encoder_.emplace(*bundle_, backend_->load_host(bundle_->graph_path("text"), bundle_->manifest().graph("text")));
    begin({"dog"});
  }

  void begin(const std::vector<std::string>& queries, bool background = false, bool again = false) {
    adaptation_ = std::make_unique<Adaptation>(*bundle_, *backend_, *encoder_, again, background);
    const AskedQueries asked = read_queries(queries, *bundle_);
    adaptation_->start(asked, encoder_->encode(asked.sentences));
    index_ = 0;
  }

  /// Tell what frames were answered, the first of them after a cut or not; returns lang1 of the query if it changed.
  std::vector<float> see(int frames, float score, float presence = 1, bool cut = false) {
    std::vector<float> changed;
    for (int number = 0; number < frames; ++number) {
      Result result;
      result.margins.resize({1, tiny::height / tiny::stride, tiny::width / tiny::stride});
      std::fill(result.margins.begin(), result.margins.end(), -1.0F);
      std::fill_n(result.margins.begin(), 20, 1.0F);
      for (Array<float>* one : {&result.scores, &result.presence}) {
        one->resize({1});
      }
      result.scores[0] = score;
      result.presence[0] = presence;
      result.adapted.resize({1});
      result.adapted[0] = 0;
      result.index = index_++;
      if (cut && number == 0) {
        result.decision = FlowDecision{};
        result.decision->reason = "scene cut";
      }
      adaptation_->observe(result, [this] {
        ++asked_;
        const Shape shape = {1, 1, tiny::height / tiny::stride, tiny::width / tiny::stride};
        Features features = {{"c2", make_tensor("c2", shape, std::vector<float>(count(shape)))}};
        features["v4"] = features["c2"];
        return SeenFrame{features, {0, 0, tiny::height, tiny::width}};
      });
      adapted_ = result.adapted[0] != 0;
      for (const auto& [row, vectors] : adaptation_->changes()) {
        changed = vectors.at("lang1");
      }
    }
    return changed;
  }

  tiny::Folder folder_;
  tiny::Journal journal_;
  std::optional<Bundle> bundle_;
  std::unique_ptr<Backend> backend_;
  std::optional<TextEncoder> encoder_;
  std::unique_ptr<Adaptation> adaptation_;
  std::int64_t index_ = 0;
  int asked_ = 0;
  bool adapted_ = false;
};

// The tiny text graph's vector of a sentence of one word is (1, 1).
const std::vector<float> own = {1, 1};

TEST_F(Settle, IsTaughtByTwoSureFramesOnce) {
  EXPECT_TRUE(see(6, 0.9F).empty());
  const std::vector<float> learned = see(1, 0.9F);
  ASSERT_EQ(learned.size(), 2U);
  // 60 steps of .05 down a slope that is the same everywhere.
  EXPECT_NEAR(learned[0], 1 - 60 * 0.05, 1e-4);
  EXPECT_TRUE(see(20, 0.9F).empty());
  EXPECT_TRUE(adapted_);
  EXPECT_EQ(asked_, 2);
  EXPECT_EQ(see(12, 0.2F), own) << "confidence fell";
  EXPECT_FALSE(adapted_);
  EXPECT_TRUE(see(30, 0.9F).empty());
}

TEST_F(Settle, IsTaughtAgainWhereThatIsWanted) {
  begin({"dog"}, false, true);
  EXPECT_FALSE(see(12, 0.9F).empty());
  EXPECT_EQ(see(12, 0.2F), own) << "confidence fell";
  EXPECT_FALSE(see(12, 0.9F).empty());
  EXPECT_TRUE(adapted_);
}

TEST_F(Settle, LeavesAloneWhatMayBeAbsentOrWasTaught) {
  EXPECT_TRUE(see(20, 0.99F, 0.69F).empty());
  EXPECT_EQ(asked_, 0);
  begin({R"({"format_version": 1, "network": ")" + std::string(64, '0') +
         R"(", "name": "", "sentence": "a dog", "shots": 1, "vectors": {"lang1": "AACAQAAAgD8="}})"});
  EXPECT_TRUE(see(20, 0.99F).empty());
  EXPECT_EQ(asked_, 0);
}

TEST_F(Settle, StartsAfreshOnACutWhereTheObjectIsGone) {
  EXPECT_FALSE(see(12, 0.9F).empty());
  EXPECT_TRUE(see(5, 0.9F, 1, true).empty()) << "the same object in another view";
  EXPECT_TRUE(see(1, 0, 0.05F).empty()) << "gone for a moment";
  EXPECT_EQ(see(1, 0, 0.05F, true), own);
  EXPECT_FALSE(see(12, 0.9F).empty());
  adaptation_->reset();
  EXPECT_EQ(adaptation_->changes().at(0).at("lang1"), own);
}

TEST_F(Settle, LearnsWhileTheStreamGoesOn) {
  begin({"dog"}, true);
  std::vector<float> learned = see(7, 0.9F);
  while (learned.empty()) {
    std::this_thread::yield();
    learned = see(1, 0.9F);
  }
  EXPECT_NEAR(learned[0], 1 - 60 * 0.05, 1e-4);
  // What is being learned when another query comes is dropped.
  begin({"dog"}, true);
  see(7, 0.9F);
  begin({"the red ball"}, true);
  EXPECT_TRUE(see(1, 0.9F).empty());
}

}  // namespace

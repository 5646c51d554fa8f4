#include "adaptation.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <utility>

#include "wordings.hpp"

namespace rvos_edge {
namespace {

// The numbers of rvos_edge/adaptation.py, which says what they are; a test compares the results.
constexpr std::size_t frames = 2;
constexpr std::int64_t apart = 5;
constexpr double sure_score = 0.85;
constexpr float sure_presence = 0.7F;
constexpr double smallest = 0.001;
constexpr double largest = 0.6;
constexpr double fallen = 0.75;
constexpr double newest = 0.1;
constexpr int frames_after_cut = 5;
constexpr float gone = 0.1F;

}  // namespace

/// Progress of one query.
struct Adaptation::Course {
  enum class State { looking, learning, adapted, over };

  Course(std::string text, Vectors vectors) : sentence(std::move(text)), own(std::move(vectors)) {}
  Course(const Course&) = delete;
  Course& operator=(const Course&) = delete;
  /// Waits for a thread that learns, which gives up.
  ~Course() { stopped = true; }

  std::string sentence;
  Vectors own;
  std::vector<SeenFrame> seen;
  std::int64_t last = 0;
  State state = State::looking;
  Vectors learned;
  bool changed = false;
  double score = 0;
  double usual = 0;
  int after_cut = 0;
  std::atomic<bool> stopped{false};
  std::future<Vectors> learning;
};

Adaptation::Adaptation(Bundle bundle, Backend& backend, TextEncoder& encoder, bool again, bool background)
    : bundle_(std::move(bundle)), backend_(backend), encoder_(encoder), again_(again), background_(background) {}

Adaptation::~Adaptation() = default;

void Adaptation::start(const AskedQueries& asked, const std::vector<HostTensor>& vectors) {
  courses_.clear();
  for (std::size_t row = 0; row < asked.sentences.size(); ++row) {
    const bool taught = asked.taught.count(row) != 0;
    courses_.push_back(taught ? nullptr : std::make_unique<Course>(asked.sentences[row], row_of(vectors, row)));
  }
}

void Adaptation::begin_again(std::unique_ptr<Course>& course) {
  const bool changed = course->state == Course::State::adapted || course->changed;
  course = std::make_unique<Course>(course->sentence, course->own);
  course->changed = changed;
}

void Adaptation::reset() {
  for (std::unique_ptr<Course>& course : courses_) {
    if (course) {
      begin_again(course);
    }
  }
}

std::map<std::size_t, Vectors> Adaptation::changes() {
  std::map<std::size_t, Vectors> changed;
  for (std::size_t row = 0; row < courses_.size(); ++row) {
    if (!courses_[row]) {
      continue;
    }
    Course& course = *courses_[row];
    if (course.learning.valid() &&
        (!background_ || course.learning.wait_for(std::chrono::seconds(0)) == std::future_status::ready)) {
      course.learned = course.learning.get();
      course.state = Course::State::adapted;
      course.changed = true;
    }
    if (std::exchange(course.changed, false)) {
      changed[row] = course.state == Course::State::adapted ? course.learned : course.own;
    }
  }
  return changed;
}

void Adaptation::observe(Result& result, const std::function<SeenFrame()>& features) {
  const bool cut = result.decision && result.decision->reason == "scene cut";
  for (std::size_t row = 0; row < courses_.size(); ++row) {
    std::unique_ptr<Course>& course = courses_[row];
    if (!course) {
      continue;
    }
    result.adapted[row] = course->state == Course::State::adapted ? 1 : 0;
    const int left = cut ? frames_after_cut : std::max(0, course->after_cut - 1);
    course->after_cut = left;
    if (left > 0 && result.presence[row] < gone) {
      begin_again(course);
    }
    observe(*course, result, row, features);
    if (again_ && course->state == Course::State::over) {
      begin_again(course);
    }
  }
}

void Adaptation::observe(Course& course, const Result& result, std::size_t row,
                         const std::function<SeenFrame()>& features) {
  const double score = result.presence[row] >= sure_presence ? result.scores[row] : 0;
  if (course.state == Course::State::adapted) {
    course.score += newest * (score - course.score);
    course.usual = std::max(course.usual, course.score);
    if (course.score < fallen * course.usual) {
      course.state = Course::State::over;
      course.changed = true;
    }
    return;
  }
  if (course.state != Course::State::looking || result.index == 0 || score < sure_score ||
      (!course.seen.empty() && result.index < course.last + apart)) {
    return;
  }
  const std::size_t pixels = count({result.margins.shape()[1], result.margins.shape()[2]});
  const float* const margin = result.margins.data() + row * pixels;
  const auto inside = std::count_if(margin, margin + pixels, [](float logit) { return logit > 0; });
  const double share = static_cast<double>(inside) / static_cast<double>(pixels);
  if (share < smallest || share > largest) {
    return;
  }
  course.seen.push_back(features());
  course.last = result.index;
  course.score = course.usual = score;
  if (course.seen.size() == frames) {
    course.state = Course::State::learning;
    // A deferred task runs when its result is asked for, before the next frame.
    const auto when = background_ ? std::launch::async : std::launch::deferred;
    course.learning = std::async(when, [this, &course] { return learn(course); });
  }
}

Vectors Adaptation::learn(Course& course) {
  const std::lock_guard<std::mutex> lock(teaching_);
  if (course.stopped) {
    return {};
  }
  if (!teacher_) {
    teacher_ = std::make_unique<Teacher>(bundle_, backend_);
  }
  const std::vector<std::string> sentences = wordings(course.sentence);
  const std::vector<HostTensor> stacked = encoder_.encode(sentences);
  std::vector<Vectors> each;
  for (std::size_t row = 0; row < sentences.size(); ++row) {
    each.push_back(row_of(stacked, row));
  }
  return teacher_->learn(std::move(course.seen), each, course.own, course.stopped);
}

}  // namespace rvos_edge

// Segment a camera or a video: an overlay in a window or in a file.
//
//     rvos_stream --bundle my-bundle --source 0 --query "the red cup" --window
//     rvos_stream --bundle my-bundle --source street.mp4 --query "the person on the left" --output overlay.mp4
#include <getopt.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <map>
#include <mutex>
#include <opencv2/core/utils/logger.hpp>
#include <opencv2/highgui.hpp>
#include <opencv2/videoio.hpp>
#include <optional>
#include <thread>

#include "overlay.hpp"
#include "rvos_edge/error.hpp"
#include "rvos_edge/language.hpp"
#include "rvos_edge/segmenter.hpp"

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr const char* help = R"(rvos_stream: segment what the queries name, frame after frame.

  --bundle DIR      bundle directory
  --source SOURCE   video file, URL, or a camera's number
  --query TEXT      object to segment, or @FILE for a taught query; repeatable
  --output FILE     write the overlay video here (.mp4)
  --window          show the overlay; q ends it
  --frames N        number of frames after which to stop
  --size HxW        network input, one that the bundle has
  --backend NAME    auto for the fastest that works, or a name such as openvino
  --device NAME     auto, cpu, cuda, or cuda:1 for the second GPU
  --threads N       CPU threads; one per physical core if left out
  --no-flow         do not use optical flow
  --adapt HOW       let queries settle on their own masks: once, or on for again
)";
constexpr option known[] = {{"bundle", required_argument, nullptr, 0}, {"source", required_argument, nullptr, 0},
                            {"query", required_argument, nullptr, 0},  {"output", required_argument, nullptr, 0},
                            {"window", no_argument, nullptr, 0},       {"frames", required_argument, nullptr, 0},
                            {"size", required_argument, nullptr, 0},   {"backend", required_argument, nullptr, 0},
                            {"device", required_argument, nullptr, 0}, {"threads", required_argument, nullptr, 0},
                            {"no-flow", no_argument, nullptr, 0},      {"adapt", required_argument, nullptr, 0},
                            {"help", no_argument, nullptr, 0},         {nullptr, 0, nullptr, 0}};

std::atomic<bool> interrupted{false};

rvos_edge::UserError bad_option(const std::string& sentence) {
  return {rvos_edge::ErrorCode::invalid_argument, sentence};
}

/// The values that were given for each option.
class Arguments {
 public:
  Arguments(int argc, char** argv) {
    opterr = 0;
    int index = 0;
    for (int found = 0; (found = getopt_long(argc, argv, "", known, &index)) != -1;) {
      if (found != 0) {
        throw bad_option("option " + std::string(argv[optind - 1]) + " is unknown or lacks its value; see --help.");
      }
      given_[known[index].name].emplace_back(optarg != nullptr ? optarg : "");
    }
  }

  [[nodiscard]] std::vector<std::string> all(const std::string& name) const {
    const auto found = given_.find(name);
    return found == given_.end() ? std::vector<std::string>() : found->second;
  }
  [[nodiscard]] bool has(const std::string& name) const { return given_.count(name) != 0; }
  [[nodiscard]] std::string text(const std::string& name, const std::string& otherwise = "") const {
    return has(name) ? all(name).back() : otherwise;
  }
  [[nodiscard]] std::optional<int> number(const std::string& name) const {
    int value = 0;
    char rest = 0;
    if (has(name) && (std::sscanf(text(name).c_str(), "%9d%c", &value, &rest) != 1 || value < 1)) {
      throw bad_option("--" + name + " " + text(name) + " is out of range; give a whole number of at least 1.");
    }
    return has(name) ? std::optional(value) : std::nullopt;
  }
  [[nodiscard]] std::optional<rvos_edge::Size> size() const {
    rvos_edge::Size size;
    char rest = 0;
    if (has("size") && std::sscanf(text("size").c_str(), "%5dx%5d%c", &size.height, &size.width, &rest) != 2) {
      throw bad_option("--size " + text("size") + ": write it as HxW, height first, for example 288x512.");
    }
    return has("size") ? std::optional(size) : std::nullopt;
  }

 private:
  std::map<std::string, std::vector<std::string>> given_;
};

/// Every frame of a file, or the newest frame of a camera; dropped frames are counted.
class Source {
 public:
  explicit Source(const std::string& name) {
    live_ = !name.empty() && std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
    const bool opened = live_ ? name.size() < 4 && capture_.open(std::stoi(name)) : capture_.open(name);
    if (!opened) {
      throw rvos_edge::UserError(rvos_edge::ErrorCode::not_found,
                                 live_ ? "camera " + name + " cannot be opened; see that it is plugged in and free."
                                       : name + " cannot be read as a video; give a video file or a camera's number.");
    }
    if (live_) {
      grabber_ = std::thread([this] { grab(); });
    }
  }

  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;
  ~Source() {
    stop_ = true;
    if (grabber_.joinable()) {
      grabber_.join();
    }
  }

  /// The next frame; false at the end.
  bool read(cv::Mat& frame) {
    if (!live_) {
      return capture_.read(frame);
    }
    std::unique_lock<std::mutex> lock(mutex_);
    while (!fresh_ && !ended_ && !interrupted) {
      // A signal does not wake the thread, so check regularly.
      arrived_.wait_for(lock, std::chrono::milliseconds(100));
    }
    if (!fresh_) {
      return false;
    }
    cv::swap(frame, newest_);
    fresh_ = false;
    return true;
  }

  [[nodiscard]] double fps() const {
    const double fps = capture_.get(cv::CAP_PROP_FPS);
    return fps > 0 && fps <= 1000 ? fps : 25.0;
  }
  [[nodiscard]] bool live() const noexcept { return live_; }
  [[nodiscard]] int dropped() const noexcept { return dropped_; }

 private:
  void grab() {
    cv::Mat frame;
    while (!stop_ && capture_.read(frame)) {
      const std::lock_guard<std::mutex> lock(mutex_);
      dropped_ += fresh_ ? 1 : 0;
      cv::swap(frame, newest_);
      fresh_ = true;
      arrived_.notify_one();
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    ended_ = true;
    arrived_.notify_one();
  }

  cv::VideoCapture capture_;
  bool live_ = false;
  std::thread grabber_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  cv::Mat newest_;
  bool fresh_ = false;
  bool ended_ = false;
  std::atomic<bool> stop_{false};
  std::atomic<int> dropped_{0};
};

/// A video file with a temporary name until it is complete.
class VideoFile {
 public:
  VideoFile(fs::path path, double fps) : path_(std::move(path)), fps_(fps) {
    part_ = path_.parent_path() / ("." + path_.stem().string() + ".part" + path_.extension().string());
  }
  VideoFile(const VideoFile&) = delete;
  VideoFile& operator=(const VideoFile&) = delete;
  ~VideoFile() {
    writer_.release();
    std::error_code ignored;
    fs::remove(part_, ignored);
  }

  void write(const cv::Mat& frame) {
    if (!writer_.isOpened() &&
        !writer_.open(part_.string(), cv::VideoWriter::fourcc('m', 'p', '4', 'v'), fps_, frame.size())) {
      throw bad_option("--output " + path_.string() + " cannot be written; choose an .mp4 in a folder of yours.");
    }
    writer_.write(frame);
  }

  /// Rename the complete file; without frames it is removed.
  void finish() {
    if (writer_.isOpened()) {
      writer_.release();
      fs::rename(part_, path_);
    }
  }

 private:
  fs::path path_;
  fs::path part_;
  double fps_;
  cv::VideoWriter writer_;
};

/// Show a frame; returns false when the user quits.
bool show(const cv::Mat& frame) {
  try {
    cv::imshow("rvos_stream", frame);
    const int key = cv::waitKey(1);
    return key != 'q' && key != 27;
  } catch (const cv::Exception&) {
    throw bad_option("--window needs a display; use --output instead.");
  }
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

int run(const Arguments& arguments) {
  // Errors are reported by this program, in one sentence.
  cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT);
  const std::vector<std::string> queries = arguments.all("query");
  const std::string source_name = arguments.text("source");
  if (source_name.empty() || !arguments.has("bundle")) {
    throw bad_option("--bundle and --source are needed; --help says what they are.");
  }
  const fs::path output = arguments.text("output");
  if (!output.empty() && fs::exists(output) && fs::exists(source_name) && fs::equivalent(output, source_name)) {
    throw bad_option("--output " + output.string() + " is the source itself; choose another file.");
  }
  rvos_edge::Options options;
  options.backend = arguments.text("backend", "auto");
  options.device = arguments.text("device", "auto");
  options.threads = arguments.number("threads");
  options.flow.enabled = !arguments.has("no-flow");
  rvos_edge::Segmenter segmenter(rvos_edge::Bundle::open(arguments.text("bundle"), arguments.size()), options);
  segmenter.set_queries(queries);
  for (const std::string& query : queries) {
    if (const std::string doubt = rvos_edge::query_doubt(query); !doubt.empty()) {
      std::cerr << "Warning: " << doubt << ".\n";
    }
  }
  Source source(source_name);
  if (arguments.has("adapt")) {
    const std::string adapt = arguments.text("adapt");
    if (adapt != "once" && adapt != "on") {
      throw bad_option("--adapt takes once or on, not " + adapt + ".");
    }
    segmenter.set_adapt(adapt == "on" ? rvos_edge::Adapt::on : rvos_edge::Adapt::once, source.live());
  }
  std::optional<VideoFile> file;
  if (!output.empty()) {
    file.emplace(output, source.fps());
  }
  std::signal(SIGINT, [](int) { interrupted = true; });
  const int most = arguments.number("frames").value_or(0);
  cv::Mat frame;
  rvos_edge::Result result;
  std::vector<double> times;
  bool more = true;
  while (more && !interrupted && (most == 0 || static_cast<int>(times.size()) < most) && source.read(frame)) {
    const auto start = Clock::now();
    segmenter.step({frame.data, frame.rows, frame.cols, frame.channels(), static_cast<std::ptrdiff_t>(frame.step)},
                   result);
    times.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
    rvos_edge_examples::draw_overlay(frame, result, 0.5);
    if (file) {
      file->write(frame);
    }
    more = !arguments.has("window") || show(frame);
  }
  if (file) {
    file->finish();
  }
  if (times.empty()) {
    throw bad_option("--source " + source_name + " gives no frames; choose another.");
  }
  std::printf("%s: %zu frames%s, %.1f ms each (median), %s because %s.\n", source_name.c_str(), times.size(),
              source.live() ? (", " + std::to_string(source.dropped()) + " dropped").c_str() : "", median(times),
              segmenter.backend_name().c_str(), segmenter.backend_reason().c_str());
  for (std::size_t query = 0; query < result.queries.size(); ++query) {
    if (result.adapted[query] != 0) {
      std::printf("Settled on what it saw: %s.\n", result.queries[query].c_str());
    }
  }
  if (file) {
    std::printf("Wrote %s.\n", output.c_str());
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Arguments arguments(argc, argv);
    if (arguments.has("help")) {
      std::cout << help;
      return 0;
    }
    return run(arguments);
  } catch (const std::exception& error) {
    std::cerr << "Error: " << error.what() << "\n";
    return dynamic_cast<const rvos_edge::UserError*>(&error) != nullptr ? 2 : 1;
  }
}

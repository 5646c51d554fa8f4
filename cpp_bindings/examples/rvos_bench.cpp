// Measure a bundle on this machine. The result is the JSON of `rvos-edge bench`, which can compare it.
//
//     rvos_bench --bundle my-bundle --backend openvino --json result.json
//     rvos-edge bench --compare python.json result.json
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>

#include "arguments.hpp"
#include "clip.hpp"
#include "machine.hpp"
#include "rvos_edge/rvos_edge.h"
#include "rvos_edge/segmenter.hpp"

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using rvos_edge_examples::Arguments;
using rvos_edge_examples::bad_option;
using rvos_edge_examples::Clip;
using Clock = std::chrono::steady_clock;

/// Frames per turn: the backends take turns.
constexpr int turn = 10;
/// Frames after which the memory of the process is measured.
constexpr int fresh_frames = 8;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double rounded(double value, double digits) {
  return std::round(value * digits) / digits;
}

/// Percentile with linear interpolation, as in NumPy.
double percentile(const std::vector<double>& sorted, double share) {
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const auto above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

Json percentiles(std::vector<double> milliseconds) {
  std::sort(milliseconds.begin(), milliseconds.end());
  return {{"p50", rounded(percentile(milliseconds, 0.5), 1e3)},
          {"p90", rounded(percentile(milliseconds, 0.9), 1e3)},
          {"p99", rounded(percentile(milliseconds, 0.99), 1e3)}};
}

/// A backend and its times, in microseconds.
class Entrant {
 public:
  Entrant(const rvos_edge::Bundle& bundle, std::string backend, const rvos_edge::Options& options)
      : backend_(std::move(backend)), segmenter_(bundle, options) {}

  [[nodiscard]] rvos_edge::Segmenter& segmenter() noexcept { return segmenter_; }

  void step(const Clip& clip, int index) {
    const auto start = Clock::now();
    segmenter_.step(clip.at(index), result_);
    const double took = seconds_since(start);
    for (const rvos_edge::Timing& timing : result_.timings) {
      // A stage that first runs now, such as flow, was absent in earlier frames.
      stages_.try_emplace(timing.stage, frames_.size(), Json());
    }
    for (auto& [stage, times] : stages_) {
      const auto found =
          std::find_if(result_.timings.begin(), result_.timings.end(),
                       [&stage = stage](const rvos_edge::Timing& timing) { return timing.stage == stage; });
      times.push_back(found == result_.timings.end() ? Json() : Json(std::llround(1e3 * found->milliseconds)));
    }
    for (const rvos_edge::Timing& timing : result_.timings) {
      if (std::find(order_.begin(), order_.end(), timing.stage) == order_.end()) {
        order_.push_back(timing.stage);
      }
    }
    frames_.push_back(std::llround(1e6 * took));
  }

  /// Drop the times of the warm-up.
  void forget() {
    frames_.clear();
    stages_.clear();
    order_.clear();
  }

  [[nodiscard]] Json run() const {
    std::vector<double> milliseconds;
    double sum = 0;
    for (const long long time : frames_) {
      milliseconds.push_back(1e-3 * static_cast<double>(time));
      sum += static_cast<double>(time);
    }
    Json stages = Json::object();
    Json all = Json::object();
    for (const std::string& stage : order_) {
      std::vector<double> times;
      for (const Json& time : stages_.at(stage)) {
        if (!time.is_null()) {
          times.push_back(1e-3 * time.get<double>());
        }
      }
      stages[stage] = percentiles(times);
      all[stage] = stages_.at(stage);
    }
    return {{"backend", backend_},
            {"runtime", segmenter_.backend_name()},
            {"reason", segmenter_.backend_reason()},
            {"end_to_end", percentiles(milliseconds)},
            {"fps", rounded(1e6 * static_cast<double>(frames_.size()) / std::max(sum, 1.0), 1e3)},
            {"stages", stages},
            {"times", {{"frame_us", frames_}, {"stages_us", all}}}};
  }

 private:
  std::string backend_;
  rvos_edge::Segmenter segmenter_;
  rvos_edge::Result result_;
  std::vector<long long> frames_;
  std::map<std::string, std::vector<Json>> stages_;
  std::vector<std::string> order_;
};

Json bundle_facts(const rvos_edge::Bundle& bundle) {
  const rvos_edge::Manifest& manifest = bundle.manifest();
  std::int64_t flops = 0;
  std::int64_t weights = 0;
  Json precision = Json::object();
  const char* names[] = {"float32", "float16", "bfloat16"};
  for (const auto& [name, spec] : manifest.graphs) {
    const std::int64_t runs = name == "text" ? 0 : name == "flow_step" && manifest.flow ? manifest.flow->iterations : 1;
    flops += runs * spec.flops;
    weights += spec.weight_bytes;
    precision[name] = names[static_cast<int>(spec.precision)];
  }
  return {{"name", manifest.name},
          {"preset", manifest.preset},
          {"fingerprint", bundle.fingerprint()},
          {"size", {manifest.size.height, manifest.size.width}},
          {"frame_flops", flops},
          {"weight_bytes", weights},
          {"precision", precision}};
}

/// Different sentences; their meaning does not affect the time.
std::vector<std::string> make_queries(int number) {
  const char* colours[] = {"red", "blue", "green", "black", "white", "yellow", "brown", "grey"};
  const char* things[] = {"dog", "car", "ball", "person", "horse", "bird", "boat", "cat"};
  std::vector<std::string> queries;
  for (int n = 0; n < number; ++n) {
    const std::string again = n < 64 ? "" : " " + std::to_string(n / 64 + 1);
    queries.push_back("the " + std::string(colours[n % 8]) + " " + things[n / 8 % 8] + again);
  }
  return queries;
}

std::string now_utc() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

/// Write a file under a temporary name and rename it when it is complete.
void write_file(const fs::path& path, const std::string& text) {
  const fs::path part = path.parent_path() / ("." + path.filename().string() + ".part");
  std::ofstream file(part, std::ios::binary);
  file << text;
  file.close();
  std::error_code problem;
  if (file) {
    fs::rename(part, path, problem);
  }
  if (!file || problem) {
    std::error_code ignored;
    fs::remove(part, ignored);
    throw bad_option("--json " + path.string() + " cannot be written; choose another place.");
  }
}

int run(const Arguments& arguments) {
  const double before_main = rvos_edge_examples::process_age();
  if (!arguments.has("bundle")) {
    throw bad_option("--bundle is needed; give the directory of a bundle.");
  }
  const int frames = arguments.number("frames", 1).value_or(200);
  const int warmup = arguments.number("warmup", 1).value_or(20);
  const int queries = arguments.number("queries", 1).value_or(1);
  auto mark = Clock::now();
  const auto bundle = rvos_edge::Bundle::open(arguments.text("bundle", ""), arguments.size("size"));
  const rvos_edge::Manifest& manifest = bundle.manifest();
  if (queries > manifest.max_queries) {
    throw bad_option("--queries " + std::to_string(queries) + " is more than this bundle's " +
                     std::to_string(manifest.max_queries) + "; ask for fewer.");
  }
  rvos_edge::Options options;
  options.device = arguments.text("device", "auto");
  options.threads = arguments.number("threads", 1);
  std::vector<std::string> backends = arguments.all("backend");
  if (backends.empty()) {
    backends = rvos_edge::available_backends(bundle, options.device);
  }
  std::vector<std::unique_ptr<Entrant>> entrants;
  for (std::size_t i = 0; i < backends.size(); ++i) {
    if (std::find(backends.begin(), backends.begin() + static_cast<std::ptrdiff_t>(i), backends[i]) !=
        backends.begin() + static_cast<std::ptrdiff_t>(i)) {
      throw bad_option("--backend " + backends[i] + " is given twice; give it once.");
    }
    options.backend = backends[i];
    entrants.push_back(std::make_unique<Entrant>(bundle, backends[i], options));
  }
  if (entrants.empty()) {
    throw bad_option("no backend can run " + arguments.text("bundle", "") + " here; build one in.");
  }
  const double open_s = seconds_since(mark);
  mark = Clock::now();
  for (const auto& entrant : entrants) {
    entrant->segmenter().set_queries(make_queries(queries));
  }
  const double queries_s = seconds_since(mark);
  const std::string source = arguments.text("source", "");
  const Clip clip = source.empty() ? rvos_edge_examples::draw_clip(manifest.size, frames + warmup)
                                   : rvos_edge_examples::read_clip(source, frames + warmup);
  mark = Clock::now();
  entrants.front()->step(clip, 0);
  const double first_frame_s = seconds_since(mark);
  for (int index = 1; index < fresh_frames; ++index) {
    entrants.front()->step(clip, index);
  }
  const double host_mib = rvos_edge_examples::peak_mib();

  const Json before = rvos_edge_examples::read_state();
  for (const auto& entrant : entrants) {
    entrant->segmenter().reset();
    for (int index = 0; index < warmup; ++index) {
      entrant->step(clip, index);
    }
    entrant->forget();
  }
  for (int start = 0; start < frames; start += turn) {
    const auto number = static_cast<std::size_t>(start / turn);
    for (std::size_t i = 0; i < entrants.size(); ++i) {
      Entrant& entrant = *entrants[(number + i) % entrants.size()];
      for (int index = start; index < std::min(start + turn, frames); ++index) {
        entrant.step(clip, warmup + index);
      }
    }
  }
  Json runs = Json::array();
  bool uses_gpu = false;
  for (const auto& entrant : entrants) {
    runs.push_back(entrant->run());
    uses_gpu = uses_gpu || entrant->segmenter().backend_name().find("cpu") == std::string::npos;
  }
  if (entrants.size() == 1) {
    // With several backends in one process these figures could not be attributed.
    runs[0]["start_up"] = {{"starts", 1},
                           {"total_s", before_main + open_s + queries_s + first_frame_s},
                           {"imports_s", before_main},
                           {"open_s", open_s},
                           {"queries_s", queries_s},
                           {"first_frame_s", first_frame_s}};
    runs[0]["memory"] = {{"host_mib", rounded(host_mib, 10)}};
  }
  const Json result = {{"format_version", 1},
                       {"made", now_utc()},
                       {"tool", std::string("rvos_bench ") + rvos_version() + " (C++)"},
                       {"machine", rvos_edge_examples::read_machine(uses_gpu)},
                       {"bundle", bundle_facts(bundle)},
                       {"workload",
                        {{"source", clip.name},
                         {"frame_size", {clip.size.height, clip.size.width}},
                         {"frames", frames},
                         {"distinct", clip.images.size()},
                         {"warmup", warmup},
                         {"queries", queries},
                         {"flow_iterations", manifest.flow ? manifest.flow->iterations : 0},
                         {"threads", options.threads ? Json(*options.threads) : Json()},
                         {"interleaved", entrants.size() > 1}}},
                       {"versions", {{"rvos_edge", rvos_version()}, {"compiler", __VERSION__}}},
                       {"before", before},
                       {"after", rvos_edge_examples::read_state()},
                       {"runs", runs}};
  for (const Json& measured : runs) {
    std::printf("%s: %.2f ms (p50), %.1f frames per second\n", measured["runtime"].get<std::string>().c_str(),
                measured["end_to_end"]["p50"].get<double>(), measured["fps"].get<double>());
  }
  if (arguments.has("json")) {
    write_file(arguments.text("json", ""), result.dump(1) + "\n");
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return rvos_edge_examples::guarded([&] {
    const Arguments arguments(argc, argv,
                              {{"bundle", true, "Bundle directory."},
                               {"backend", true, "Backend such as openvino; repeatable; all usable ones if left out."},
                               {"size", true, "Network input as HxW, one that the bundle has."},
                               {"queries", true, "Number of queries (1)."},
                               {"frames", true, "Measured frames (200)."},
                               {"warmup", true, "Frames before them (20)."},
                               {"source", true, "Video, read before the measurement; drawn shapes if left out."},
                               {"threads", true, "CPU threads; one per physical core if left out."},
                               {"device", true, "auto, cpu or cuda."},
                               {"json", true, "Write the result here."},
                               {"help", false, "Show this help."}});
    if (arguments.has("help")) {
      arguments.print_help("rvos_bench: measure a bundle on this machine.");
      return 0;
    }
    return run(arguments);
  });
}

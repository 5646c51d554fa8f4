/// @file
/// Runs parts of the library for the tests in Python: a command on the command line, data on standard input.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "flow_policy.hpp"
#include "postprocess.hpp"
#include "resize.hpp"
#include "rvos_edge/engine.hpp"
#include "rvos_edge/language.hpp"
#include "rvos_edge/segmenter.hpp"
#include "text.hpp"
#include "tokenizer.hpp"
#include "unicode.hpp"
#include "wordings.hpp"

namespace {

using namespace rvos_edge;
using Json = nlohmann::json;

std::string read_all(std::istream& stream) {
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return read_all(file);
}

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

const std::uint8_t* pixels(const std::string& bytes) {
  return reinterpret_cast<const std::uint8_t*>(bytes.data());
}

/// "error bad_query: ..." for a refusal: its code and its sentence.
std::string refusal(const UserError& error) {
  constexpr const char* names[] = {"ok",        "invalid_argument",    "not_found", "bad_bundle", "bad_query",
                                   "bad_frame", "unsupported_backend", "engine",    "internal"};
  return std::string("error ") + names[static_cast<int>(error.code())] + ": " + error.what();
}

/// Token ids of each line, UTF-8 in hexadecimal.
void tokenize(const std::string& path) {
  const Tokenizer tokenizer = Tokenizer::from_file(path);
  for (std::string line; std::getline(std::cin, line);) {
    for (const std::int64_t id : tokenizer.encode(decode_utf8(from_hex(line)))) {
      std::cout << id << ' ';
    }
    std::cout << '\n';
  }
}

/// Each line normalised, or its refusal.
void queries() {
  for (std::string line; std::getline(std::cin, line);) {
    try {
      std::cout << check_queries({from_hex(line)}).front() << '\n';
    } catch (const UserError& error) {
      std::cout << refusal(error) << '\n';
    }
  }
}

/// The doubt about each line, UTF-8 in hexadecimal; an empty line where there is none.
void doubts() {
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << query_doubt(from_hex(line)) << '\n';
  }
}

/// Other wordings of each line, as JSON.
void reword() {
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << Json(wordings(from_hex(line))) << '\n';
  }
}

/// The backends that are built in and can run a bundle on the CPU.
void backends(const std::string& bundle) {
  for (const std::string& name : available_backends(Bundle::open(bundle), "cpu")) {
    std::cout << name << '\n';
  }
}

/// "ok" and the fingerprint of the bundle of each line, or its refusal.
void bundles() {
  for (std::string line; std::getline(std::cin, line);) {
    const Json request = Json::parse(line);
    std::optional<Size> size;
    if (request.contains("size")) {
      size = Size{request["size"][0], request["size"][1]};
    }
    try {
      const Bundle bundle = Bundle::open(request["path"].get<std::string>(), size);
      std::cout << "ok " << bundle.fingerprint() << '\n';
    } catch (const UserError& error) {
      std::cout << refusal(error) << '\n';
    }
  }
}

Size size_of(const Json& json) {
  return {json[0], json[1]};
}

/// Resizes standard input, uint8 [H,W,3] or float32 [h,w], as the JSON says.
void resize(const std::string& request_text) {
  const Json request = Json::parse(request_text);
  const std::string input = read_all(std::cin);
  const Size from = size_of(request["from"]);
  const Size to = size_of(request["to"]);
  const std::string kind = request["kind"];
  Array<std::uint8_t> output;
  output.resize({to.height, to.width, 3});
  if (kind == "linear") {
    Resizer resizer(to);
    resizer({pixels(input), from.height, from.width}, output.data());
  } else if (kind == "area") {
    AreaResizer resizer(to);
    resizer(pixels(input), from, output.data());
  } else {
    Array<float> margins;
    margins.resize({1, from.height, from.width});
    std::copy_n(reinterpret_cast<const float*>(input.data()), margins.size(), margins.data());
    Postprocessor(request["threshold"].get<float>()).masks(margins, to, output);
  }
  std::fwrite(output.data(), 1, output.size(), stdout);
}

FlowOptions flow_options(const Json& json) {
  FlowOptions options;
  const auto number = [&json](const char* name, auto& target) {
    if (json.contains(name)) {
      if (json[name].is_null()) {
        target.reset();
      } else {
        target = json[name].get<typename std::decay_t<decltype(target)>::value_type>();
      }
    }
  };
  options.enabled = json.value("enabled", options.enabled);
  number("iterations", options.iterations);
  options.every = json.value("every", options.every);
  number("still", options.still);
  number("hold_fps", options.hold_fps);
  options.keep_flow = json.value("keep_flow", options.keep_flow);
  return options;
}

Json to_json(const FlowDecision& decision) {
  return {{"action", flow_action_name(decision.action)},
          {"reason", decision.reason},
          {"iterations", decision.iterations},
          {"warm", decision.warm},
          {"encode", decision.encode},
          {"late", decision.late}};
}

/// Decisions for a trace: images in a file of uint8 [N,h,w,3], sizes and the stage times of each frame.
void policy() {
  const Json trace = Json::parse(std::cin);
  const Size input = size_of(trace["input"]);
  const std::string images = read_file(trace["images"]);
  const std::size_t bytes = count({input.height, input.width, 3});
  FlowPolicy decider(flow_options(trace["options"]), trace["iterations"]);
  for (const Json& frame : trace["frames"]) {
    if (frame.value("reset", false)) {
      decider.reset();
    }
    const std::size_t image = frame["image"];
    const FlowDecision decision = decider.decide(pixels(images) + image * bytes, input, size_of(frame["size"]));
    std::vector<Timing> timings;
    const Json& times = frame[decision.iterations > 0 ? "with_flow" : "without_flow"];
    for (const Json& time : times) {
      timings.push_back({time[0], time[1].get<double>() * (time[0] == "flow_step" ? decision.iterations : 1)});
    }
    decider.observe(timings, decision);
    std::cout << to_json(decision) << '\n';
  }
}

/// A whole video: a line of JSON per frame, the masks and margins behind each other in a file.
void run() {
  const Json script = Json::parse(std::cin);
  Options options;
  options.backend = script.value("backend", "auto");
  options.flow = flow_options(script["flow"]);
  Segmenter segmenter(Bundle::open(script["bundle"].get<std::string>()), options);
  segmenter.set_adapt(script.value("adapt", false) ? Adapt::once : Adapt::off);
  std::ifstream frames(script["frames"].get<std::string>(), std::ios::binary);
  std::ofstream masks(script["masks"].get<std::string>(), std::ios::binary);
  Result result;
  for (const Json& step : script["steps"]) {
    if (step.value("reset", false)) {
      segmenter.reset();
    }
    if (step.contains("queries")) {
      segmenter.set_queries(step["queries"].get<std::vector<std::string>>());
    }
    const Size size = size_of(step["size"]);
    std::vector<char> frame(count({size.height, size.width, 3}));
    frames.read(frame.data(), static_cast<std::streamsize>(frame.size()));
    segmenter.step({reinterpret_cast<const std::uint8_t*>(frame.data()), size.height, size.width}, result);
    masks.write(reinterpret_cast<const char*>(result.masks.data()), static_cast<std::streamsize>(result.masks.size()));
    masks.write(reinterpret_cast<const char*>(result.margins.data()),
                static_cast<std::streamsize>(result.margins.size() * sizeof(float)));
    Json line = {{"scores", std::vector<float>(result.scores.begin(), result.scores.end())},
                 {"queries", result.queries},
                 {"index", result.index},
                 {"timings", Json::object()},
                 {"flow_used", result.flow_used},
                 {"margin_shape", result.margins.shape()},
                 {"backend", segmenter.backend_name()}};
    for (const Timing& timing : result.timings) {
      line["timings"][timing.stage] = timing.milliseconds;
    }
    line["presence"] = std::vector<float>(result.presence.begin(), result.presence.end());
    line["adapted"] = std::vector<bool>(result.adapted.begin(), result.adapted.end());
    line["present"] = std::vector<bool>(result.present.begin(), result.present.end());
    if (result.decision) {
      line["decision"] = to_json(*result.decision);
    }
    std::cout << line << '\n';
  }
}

int dispatch(const std::vector<std::string>& words) {
  const std::string command = words.empty() ? "" : words[0];
  if (command == "tokenize" && words.size() == 2) {
    tokenize(words[1]);
  } else if (command == "queries") {
    queries();
  } else if (command == "doubts") {
    doubts();
  } else if (command == "backends" && words.size() == 2) {
    backends(words[1]);
  } else if (command == "wordings") {
    reword();
  } else if (command == "bundles") {
    bundles();
  } else if (command == "resize" && words.size() == 2) {
    resize(words[1]);
  } else if (command == "policy") {
    policy();
  } else if (command == "run") {
    run();
  } else {
    std::cerr
        << "usage: rvos_edge_probe tokenize FILE | queries | wordings | backends BUNDLE | bundles | resize JSON | "
           "policy | run\n";
    return 2;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return dispatch({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 2;
  }
}

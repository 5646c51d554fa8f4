#include "machine.hpp"

#include <sched.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <sstream>
#include <string>

namespace rvos_edge_examples {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

std::string read(const fs::path& path) {
  std::ifstream file(path);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  // Files of the device tree end with NUL.
  text.erase(std::find(text.begin(), text.end(), '\0'), text.end());
  const auto end = text.find_last_not_of(" \n\t");
  return end == std::string::npos ? "" : text.substr(0, end + 1);
}

std::string field(const std::string& text, const std::string& pattern) {
  std::smatch match;
  return std::regex_search(text, match, std::regex(pattern)) ? match[1].str() : "";
}

std::vector<fs::path> folders(const fs::path& root, const std::string& prefix) {
  std::vector<fs::path> found;
  std::error_code problem;
  for (fs::directory_iterator at(root, problem), end; !problem && at != end; at.increment(problem)) {
    if (at->path().filename().string().rfind(prefix, 0) == 0) {
      found.push_back(at->path());
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

bool is_number(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

Json read_machine(bool uses_gpu) {
  utsname system{};
  uname(&system);
  std::string cpu = field(read("/proc/cpuinfo"), R"((?:model name|Model)\s*:\s*([^\n]+))");
  cpu = cpu.empty() ? system.machine : cpu;
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  const int cores = sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : 1;
  const std::string memory = field(read("/proc/meminfo"), R"(MemTotal:\s*(\d+) kB)");
  const std::string model = read("/proc/device-tree/model");
  const bool jetson = model.find("Jetson") != std::string::npos;
  // Provided by the driver.
  std::string gpu = jetson ? model : "";
  for (const fs::path& folder : folders("/proc/driver/nvidia/gpus", "")) {
    gpu = gpu.empty() ? field(read(folder / "information"), R"(Model:\s*([^\n]+))") : gpu;
  }
  const std::string on_cpu = cpu + ", " + std::to_string(cores) + " core" + (cores > 1 ? "s" : "");
  return {{"name", jetson || (uses_gpu && !gpu.empty()) ? gpu : on_cpu},
          {"cpu", cpu},
          {"cores", cores},
          {"memory_mib", memory.empty() ? 0 : std::stoll(memory) / 1024},
          {"gpu", gpu.empty() ? Json() : Json(gpu)},
          {"system", std::string(system.sysname) + " " + system.machine}};
}

Json read_state() {
  double load = 0;
  const bool loaded = static_cast<bool>(std::istringstream(read("/proc/loadavg")) >> load);
  std::set<std::string> governors;
  for (const fs::path& policy : folders("/sys/devices/system/cpu/cpufreq", "policy")) {
    governors.insert(read(policy / "scaling_governor"));
  }
  governors.erase("");
  Json temperatures = Json::object();
  for (const fs::path& zone : folders("/sys/class/thermal", "thermal_zone")) {
    const std::string degrees = read(zone / "temp");
    // A zone that is switched off cannot be read, or reports a temperature below 0.
    if (is_number(degrees)) {
      const std::string name = read(zone / "type");
      const std::string number = zone.filename().string().substr(12);
      temperatures[temperatures.contains(name) ? name + " " + number : name] = std::stod(degrees) / 1000;
    }
  }
  return {{"load_average", loaded ? Json(load) : Json()}, {"governors", governors}, {"temperatures_c", temperatures}};
}

double process_age() {
  // The 22nd field. The name before may contain any characters, so search for its closing bracket.
  const std::string text = read("/proc/self/stat");
  std::istringstream fields(text.substr(std::min(text.rfind(')') + 1, text.size())));
  std::string value;
  for (int i = 3; i <= 22 && fields >> value; ++i) {
  }
  timespec now{};
  if (!is_number(value) || clock_gettime(CLOCK_BOOTTIME, &now) != 0) {
    return 0;
  }
  const double started = std::stod(value) / static_cast<double>(sysconf(_SC_CLK_TCK));
  return std::max(0.0, static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec) - started);
}

double peak_mib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

}  // namespace rvos_edge_examples

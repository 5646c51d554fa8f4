#include "teaching.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include "half.hpp"
#include "names.hpp"
#include "rvos_edge/error.hpp"

namespace rvos_edge {
namespace {

constexpr int steps = 60;
constexpr float rate = 0.05F;
// Adam's: decays, and their complements as rvos_edge/teaching.py rounds them.
constexpr double first_decay = 0.9;
constexpr double second_decay = 0.999;
constexpr float first_share = 0.1F;
constexpr float second_share = 0.001F;
constexpr float least = 1e-8F;

/// Copy float32 values to the bytes of a float32 or float16 array.
void write_floats(std::byte* target, DType dtype, const std::vector<float>& values) {
  if (dtype == DType::float32) {
    std::memcpy(target, values.data(), values.size() * sizeof(float));
    return;
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint16_t half = float_to_half(values[i]);
    std::memcpy(target + i * sizeof half, &half, sizeof half);
  }
}

std::vector<float> read_floats(const std::byte* source, DType dtype, std::size_t size) {
  std::vector<float> values(size);
  if (dtype == DType::float32) {
    std::memcpy(values.data(), source, size * sizeof(float));
    return values;
  }
  for (std::size_t i = 0; i < size; ++i) {
    std::uint16_t half = 0;
    std::memcpy(&half, source + i * sizeof half, sizeof half);
    values[i] = half_to_float(half);
  }
  return values;
}

[[nodiscard]] UserError bad_teach() {
  return {ErrorCode::bad_bundle, "the graph 'teach' of the bundle is not of the form that one has; export it again."};
}

GraphSpec in_float32(GraphSpec spec) {
  if (spec.precision == Arithmetic::bfloat16) {
    spec.precision = Arithmetic::float32;
  }
  return spec;
}

}  // namespace

HostTensor make_tensor(const std::string& name, Shape shape, const std::vector<float>& values) {
  HostTensor tensor{name, DType::float32, std::move(shape), {}};
  tensor.data.resize(values.size() * sizeof(float));
  write_floats(tensor.data.data(), DType::float32, values);
  return tensor;
}

Vectors row_of(const std::vector<HostTensor>& stacked, std::size_t row) {
  Vectors vectors;
  for (const HostTensor& tensor : stacked) {
    const auto size = static_cast<std::size_t>(tensor.shape.back());
    const std::byte* start = tensor.data.data() + row * size * dtype_bytes(tensor.dtype);
    vectors[tensor.name] = read_floats(start, tensor.dtype, size);
  }
  return vectors;
}

void put_row(std::vector<HostTensor>& stacked, std::size_t row, const Vectors& vectors) {
  for (HostTensor& tensor : stacked) {
    const auto found = vectors.find(tensor.name);
    if (found != vectors.end() && tensor.shape.back() == static_cast<std::int64_t>(found->second.size())) {
      std::byte* const start = tensor.data.data() + row * found->second.size() * dtype_bytes(tensor.dtype);
      write_floats(start, tensor.dtype, found->second);
    }
  }
}

Teacher::Teacher(const Bundle& bundle, Backend& backend)
    : teach_spec_(bundle.manifest().graph(teach_graph)),
      gating_spec_(in_float32(bundle.manifest().graph(gating_graph))),
      teach_(backend.load_host(bundle.graph_path(teach_graph), teach_spec_)),
      gating_(backend.load_host(bundle.graph_path(gating_graph), gating_spec_)), input_(bundle.manifest().size) {}

Teacher::Outputs Teacher::run(HostGraph& graph, const GraphSpec& spec, const Features& features,
                              const Vectors& vectors) {
  std::vector<HostTensor> inputs;
  for (const TensorSpec& tensor : spec.inputs) {
    const auto vector = vectors.find(tensor.name);
    const auto feature = features.find(tensor.name);
    if (vector == vectors.end() && feature == features.end()) {
      throw bad_teach();
    }
    HostTensor input =
        vector == vectors.end()
            ? feature->second
            : make_tensor(tensor.name, {1, static_cast<std::int64_t>(vector->second.size())}, vector->second);
    if (tensor.dtype != DType::float32) {
      const std::vector<float> values = read_floats(input.data.data(), DType::float32, count(input.shape));
      input.dtype = tensor.dtype;
      input.data.resize(values.size() * dtype_bytes(tensor.dtype));
      write_floats(input.data.data(), tensor.dtype, values);
    }
    inputs.push_back(std::move(input));
  }
  Outputs outputs;
  for (const HostTensor& output : graph.run(inputs)) {
    outputs[output.name] = read_floats(output.data.data(), output.dtype, count(output.shape));
  }
  return outputs;
}

void Teacher::add_target(SeenFrame& frame, const std::vector<Vectors>& wordings) {
  const auto answer = std::find_if(gating_spec_.outputs.begin(), gating_spec_.outputs.end(),
                                   [](const TensorSpec& spec) { return spec.shape.size() == 3; });
  if (answer == gating_spec_.outputs.end()) {
    throw bad_teach();
  }
  const Size grid{static_cast<int>(answer->shape[1].extent), static_cast<int>(answer->shape[2].extent)};
  std::vector<float> sum(count({grid.height, grid.width}));
  for (const Vectors& wording : wordings) {
    const std::vector<float> margin = run(*gating_, gating_spec_, frame.features, wording).at(answer->name);
    if (margin.size() != sum.size()) {
      throw bad_teach();
    }
    std::transform(sum.begin(), sum.end(), margin.begin(), sum.begin(), std::plus<>());
  }
  const Region shown = scale_region(frame.place, input_, grid);
  std::vector<float> target(sum.size());
  std::vector<float> weight(sum.size());
  for (int y = shown.top; y < shown.top + shown.height; ++y) {
    for (int x = shown.left; x < shown.left + shown.width; ++x) {
      const std::size_t pixel = count({y, grid.width}) + static_cast<std::size_t>(x);
      target[pixel] = sum[pixel] > 0 ? 1.0F : 0.0F;
      weight[pixel] = 1;
    }
  }
  const Shape shape = {1, 1, grid.height, grid.width};
  frame.features["target"] = make_tensor("target", shape, target);
  frame.features["weight"] = make_tensor("weight", shape, weight);
}

Vectors Teacher::learn(std::vector<SeenFrame> frames, const std::vector<Vectors>& wordings, Vectors vectors,
                       const std::atomic<bool>& stopped) {
  for (SeenFrame& frame : frames) {
    add_target(frame, wordings);
  }
  std::map<std::string, std::vector<float>> means;
  std::map<std::string, std::vector<float>> squares;
  for (int step = 1; step <= steps && !stopped; ++step) {
    const SeenFrame& frame = frames[static_cast<std::size_t>(step - 1) % frames.size()];
    const Outputs outputs = run(*teach_, teach_spec_, frame.features, vectors);
    const auto first_scale = static_cast<float>(1 - std::pow(first_decay, step));
    const auto second_scale = static_cast<float>(1 - std::pow(second_decay, step));
    for (auto& [name, vector] : vectors) {
      const auto found = outputs.find("grad" + name.substr(std::strlen("lang")));
      if (found == outputs.end()) {
        continue;
      }
      if (found->second.size() != vector.size()) {
        throw bad_teach();
      }
      std::vector<float>& mean = means[name];
      std::vector<float>& square = squares[name];
      mean.resize(vector.size());
      square.resize(vector.size());
      for (std::size_t i = 0; i < vector.size(); ++i) {
        const float gradient = found->second[i];
        mean[i] = static_cast<float>(first_decay) * mean[i] + first_share * gradient;
        square[i] = static_cast<float>(second_decay) * square[i] + second_share * (gradient * gradient);
        vector[i] -= rate * (mean[i] / first_scale / (std::sqrt(square[i] / second_scale) + least));
      }
    }
  }
  return vectors;
}

}  // namespace rvos_edge

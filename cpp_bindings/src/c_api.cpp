#include <algorithm>
#include <cstring>
#include <exception>
#include <new>

#include "rvos_edge/language.hpp"
#include "rvos_edge/rvos_edge.h"
#include "rvos_edge/segmenter.hpp"

struct rvos_bundle {
  rvos_edge::Bundle value;
};
struct rvos_segmenter {
  rvos_edge::Segmenter value;
};
struct rvos_result {
  rvos_edge::Result value;
};

namespace {

using rvos_edge::ErrorCode;
using rvos_edge::UserError;

rvos_status report(rvos_error* error, rvos_status status, const char* message) noexcept {
  if (error != nullptr) {
    error->status = status;
    std::size_t length = std::min(std::strlen(message), sizeof error->message - 1);
    // Do not cut inside a character.
    while (length > 0 && (static_cast<unsigned char>(message[length]) & 0xC0U) == 0x80) {
      --length;
    }
    std::memcpy(error->message, message, length);
    error->message[length] = '\0';
  }
  return status;
}

/// Run `work`; an exception becomes a status and a message.
template <class Work>
rvos_status guarded(rvos_error* error, Work work) noexcept {
  try {
    work();
    return report(error, RVOS_OK, "");
  } catch (const UserError& refused) {
    return report(error, static_cast<rvos_status>(refused.code()), refused.what());
  } catch (const std::bad_alloc&) {
    return report(error, RVOS_INTERNAL, "memory is exhausted; close other programs or use a smaller input size.");
  } catch (const std::exception& fault) {
    return report(error, RVOS_INTERNAL, fault.what());
  } catch (...) {
    return report(error, RVOS_INTERNAL, "an unknown error occurred.");
  }
}

void need(const void* pointer, const char* name) {
  if (pointer == nullptr) {
    throw UserError(ErrorCode::invalid_argument, std::string("argument '") + name + "' must not be NULL.");
  }
}

rvos_edge::Options translate(const rvos_options& program) {
  rvos_options given;
  const std::size_t size = program.struct_size;
  if (size < sizeof program.struct_size || size > sizeof given) {
    throw UserError(ErrorCode::invalid_argument,
                    "the options were not set by rvos_options_init, or are those of a newer library; call it first.");
  }
  rvos_options_init(&given);
  std::memcpy(&given, &program, size);
  rvos_edge::Options options;
  options.backend = given.backend == nullptr ? "auto" : given.backend;
  options.device = given.device == nullptr ? "auto" : given.device;
  if (given.threads != 0) {
    options.threads = given.threads;
  }
  options.threshold = given.threshold;
  options.keep_absent = given.keep_absent != 0;
  rvos_edge::FlowOptions& flow = options.flow;
  flow.enabled = given.flow_enabled != 0;
  if (given.flow_iterations != 0) {
    flow.iterations = given.flow_iterations;
  }
  flow.every = given.flow_every;
  if (given.flow_still >= 0) {
    flow.still = given.flow_still;
  }
  if (given.flow_hold_fps != 0) {
    flow.hold_fps = given.flow_hold_fps;
  }
  flow.keep_flow = given.flow_keep_flow != 0;
  return options;
}

template <class T>
const T* extents(const rvos_edge::Array<T>& array, std::int32_t* height, std::int32_t* width) noexcept {
  const auto& shape = array.shape();
  if (height != nullptr) {
    *height = shape.size() == 3 ? static_cast<std::int32_t>(shape[1]) : 0;
  }
  if (width != nullptr) {
    *width = shape.size() == 3 ? static_cast<std::int32_t>(shape[2]) : 0;
  }
  return array.size() == 0 ? nullptr : array.data();
}

}  // namespace

const char* rvos_version(void) {
  return RVOS_EDGE_VERSION;
}

void rvos_options_init_sized(rvos_options* options, size_t struct_size) {
  if (options == nullptr) {
    return;
  }
  const rvos_edge::FlowOptions flow;
  rvos_options defaults = {};
  defaults.struct_size = struct_size;
  defaults.flow_enabled = flow.enabled ? 1 : 0;
  defaults.flow_every = flow.every;
  defaults.flow_still = -1;
  // A program that was compiled with an older header has a smaller structure.
  std::memcpy(options, &defaults, std::min(struct_size, sizeof defaults));
}

rvos_status rvos_bundle_open(const char* path, int32_t height, int32_t width, rvos_bundle** bundle, rvos_error* error) {
  return guarded(error, [&] {
    need(bundle, "bundle");
    *bundle = nullptr;
    need(path, "path");
    const bool whole = height == 0 && width == 0;
    const auto size = whole ? std::nullopt : std::optional(rvos_edge::Size{height, width});
    *bundle = new rvos_bundle{rvos_edge::Bundle::open(path, size)};
  });
}

void rvos_bundle_destroy(rvos_bundle* bundle) {
  delete bundle;
}

void rvos_bundle_size(const rvos_bundle* bundle, int32_t* height, int32_t* width) {
  const rvos_edge::Size size = bundle == nullptr ? rvos_edge::Size{} : bundle->value.manifest().size;
  if (height != nullptr) {
    *height = size.height;
  }
  if (width != nullptr) {
    *width = size.width;
  }
}

rvos_status rvos_segmenter_create(const rvos_bundle* bundle, const rvos_options* options, rvos_segmenter** segmenter,
                                  rvos_error* error) {
  return guarded(error, [&] {
    need(segmenter, "segmenter");
    *segmenter = nullptr;
    need(bundle, "bundle");
    const rvos_edge::Options translated = options == nullptr ? rvos_edge::Options{} : translate(*options);
    *segmenter = new rvos_segmenter{rvos_edge::Segmenter(bundle->value, translated)};
  });
}

void rvos_segmenter_destroy(rvos_segmenter* segmenter) {
  delete segmenter;
}

const char* rvos_segmenter_backend(const rvos_segmenter* segmenter) {
  return segmenter == nullptr ? "" : segmenter->value.backend_name().c_str();
}

rvos_status rvos_segmenter_set_queries(rvos_segmenter* segmenter, const char* const* queries, size_t count,
                                       rvos_error* error) {
  return guarded(error, [&] {
    need(segmenter, "segmenter");
    std::vector<std::string> sentences;
    for (std::size_t i = 0; queries != nullptr && i < count; ++i) {
      if (queries[i] == nullptr) {
        throw UserError(ErrorCode::bad_query, "a query must be a string, not NULL; give a sentence.");
      }
      sentences.emplace_back(queries[i]);
    }
    segmenter->value.set_queries(sentences);
  });
}

int32_t rvos_query_doubt(const char* query, rvos_error* doubt) {
  std::string found;
  const rvos_status status = guarded(doubt, [&] {
    need(query, "query");
    found = rvos_edge::query_doubt(query);
  });
  if (status == RVOS_OK) {
    report(doubt, RVOS_OK, found.c_str());
  }
  return status == RVOS_OK && found.empty() ? 0 : 1;
}

rvos_status rvos_segmenter_step(rvos_segmenter* segmenter, const uint8_t* data, int32_t height, int32_t width,
                                ptrdiff_t stride, rvos_result* result, rvos_error* error) {
  return guarded(error, [&] {
    need(segmenter, "segmenter");
    need(result, "result");
    segmenter->value.step({data, height, width, 3, stride}, result->value);
  });
}

rvos_status rvos_segmenter_set_threshold(rvos_segmenter* segmenter, float threshold, rvos_error* error) {
  return guarded(error, [&] {
    need(segmenter, "segmenter");
    segmenter->value.set_threshold(threshold);
  });
}

rvos_status rvos_segmenter_set_iterations(rvos_segmenter* segmenter, int32_t iterations, rvos_error* error) {
  return guarded(error, [&] {
    need(segmenter, "segmenter");
    segmenter->value.set_iterations(iterations);
  });
}

rvos_status rvos_segmenter_set_adapt(rvos_segmenter* segmenter, int32_t adapt, int32_t background, rvos_error* error) {
  return guarded(error, [&] {
    need(segmenter, "segmenter");
    if (adapt < 0 || adapt > 2) {
      throw UserError(ErrorCode::invalid_argument, "argument 'adapt' must be 0, 1 or 2.");
    }
    segmenter->value.set_adapt(static_cast<rvos_edge::Adapt>(adapt), background != 0);
  });
}

rvos_status rvos_segmenter_reset(rvos_segmenter* segmenter, rvos_error* error) {
  return guarded(error, [&] {
    need(segmenter, "segmenter");
    segmenter->value.reset();
  });
}

rvos_result* rvos_result_create(void) {
  return new (std::nothrow) rvos_result{};
}

void rvos_result_destroy(rvos_result* result) {
  delete result;
}

size_t rvos_result_queries(const rvos_result* result) {
  return result == nullptr ? 0 : result->value.queries.size();
}

const char* rvos_result_query(const rvos_result* result, size_t index) {
  return index < rvos_result_queries(result) ? result->value.queries[index].c_str() : nullptr;
}

const uint8_t* rvos_result_masks(const rvos_result* result, int32_t* height, int32_t* width) {
  return result == nullptr ? nullptr : extents(result->value.masks, height, width);
}

const float* rvos_result_margins(const rvos_result* result, int32_t* height, int32_t* width) {
  return result == nullptr ? nullptr : extents(result->value.margins, height, width);
}

const float* rvos_result_scores(const rvos_result* result) {
  return result == nullptr ? nullptr : result->value.scores.data();
}

const float* rvos_result_presence(const rvos_result* result) {
  return result == nullptr ? nullptr : result->value.presence.data();
}

const uint8_t* rvos_result_present(const rvos_result* result) {
  return result == nullptr ? nullptr : result->value.present.data();
}

const uint8_t* rvos_result_adapted(const rvos_result* result) {
  return result == nullptr ? nullptr : result->value.adapted.data();
}

const float* rvos_result_flow(const rvos_result* result, int32_t* height, int32_t* width) {
  return result == nullptr ? nullptr : extents(result->value.flow, height, width);
}

int64_t rvos_result_index(const rvos_result* result) {
  return result == nullptr ? 0 : result->value.index;
}

int32_t rvos_result_flow_used(const rvos_result* result) {
  return result != nullptr && result->value.flow_used ? 1 : 0;
}

const char* rvos_result_flow_reason(const rvos_result* result) {
  return result != nullptr && result->value.decision ? result->value.decision->reason.c_str() : "";
}

size_t rvos_result_timings(const rvos_result* result) {
  return result == nullptr ? 0 : result->value.timings.size();
}

const char* rvos_result_timing(const rvos_result* result, size_t index, double* milliseconds) {
  if (index >= rvos_result_timings(result)) {
    return nullptr;
  }
  const rvos_edge::Timing& timing = result->value.timings[index];
  if (milliseconds != nullptr) {
    *milliseconds = timing.milliseconds;
  }
  return timing.stage.c_str();
}

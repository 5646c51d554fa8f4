// The Python module: the interface of rvos_edge.Segmenter on top of the C++ runtime.
#include <nanobind/nanobind.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <utility>

#include "arrays.hpp"
#include "rvos_edge/segmenter.hpp"

namespace {

using namespace nanobind::literals;
namespace nb = nanobind;
namespace rv = rvos_edge;
using std::filesystem::path;

/// `Result` with NumPy arrays in place of the library's.
struct PyResult {
  nb::tuple queries;
  nb::object masks;
  nb::object margins;
  nb::object scores;
  nb::object presence;
  nb::object present;
  nb::object adapted;
  nb::dict timings;
  bool flow_used = false;
  nb::object flow;
  std::int64_t index = 0;
  std::optional<rv::FlowDecision> decision;
};

nb::tuple to_tuple(const std::vector<std::string>& strings) {
  nb::list list;
  for (const std::string& string : strings) {
    list.append(string);
  }
  return nb::tuple(list);
}

PyResult to_python(rv::Result& result) {
  PyResult out;
  out.queries = to_tuple(result.queries);
  out.masks = rvos_edge_python::to_bool(result.masks);
  out.margins = rvos_edge_python::to_float(result.margins);
  out.scores = rvos_edge_python::to_float(result.scores);
  out.presence = rvos_edge_python::to_float(result.presence);
  out.present = rvos_edge_python::to_bool(result.present);
  out.adapted = rvos_edge_python::to_bool(result.adapted);
  for (const rv::Timing& timing : result.timings) {
    out.timings[timing.stage.c_str()] = timing.milliseconds;
  }
  out.flow_used = result.flow_used;
  out.flow = result.flow.size() == 0 ? nb::none() : rvos_edge_python::to_float(result.flow);
  out.index = result.index;
  out.decision = std::move(result.decision);
  return out;
}

/// A segmenter that releases Python's lock while it works.
class PySegmenter {
 public:
  PySegmenter(const path& bundle, std::optional<std::pair<int, int>> size, std::string device, std::string backend,
              const rv::FlowOptions& flow, std::optional<int> threads, float threshold, bool keep_absent) {
    rv::Options options;
    options.keep_absent = keep_absent;
    options.backend = std::move(backend);
    options.device = std::move(device);
    options.threads = threads;
    options.flow = flow;
    options.threshold = threshold;
    std::optional<rv::Size> chosen;
    if (size) {
      chosen = rv::Size{size->first, size->second};
    }
    const nb::gil_scoped_release released;
    segmenter_ = std::make_unique<rv::Segmenter>(rv::Bundle::open(bundle, chosen), options);
  }

  void set_queries(nb::handle queries) {
    const std::vector<std::string> sentences = rvos_edge_python::to_queries(queries);
    const nb::gil_scoped_release released;
    segmenter_->set_queries(sentences);
  }

  PyResult step(nb::handle frame) {
    const rvos_edge_python::Frame looked = rvos_edge_python::view_frame(frame);
    rv::Result result;
    {
      const nb::gil_scoped_release released;
      segmenter_->step(looked.view, result);
    }
    return to_python(result);
  }

  void reset() {
    const nb::gil_scoped_release released;
    segmenter_->reset();
  }

  [[nodiscard]] nb::tuple queries() const {
    std::vector<std::string> found;
    {
      const nb::gil_scoped_release released;
      found = segmenter_->queries();
    }
    return to_tuple(found);
  }

  [[nodiscard]] const std::string& backend_name() const { return segmenter_->backend_name(); }
  [[nodiscard]] std::string backend_reason() const {
    const nb::gil_scoped_release released;
    return segmenter_->backend_reason();
  }
  [[nodiscard]] nb::tuple check_queries(nb::handle queries) const {
    return to_tuple(segmenter_->check_queries(rvos_edge_python::to_queries(queries)));
  }
  [[nodiscard]] float threshold() const {
    const nb::gil_scoped_release released;
    return segmenter_->threshold();
  }
  void set_threshold(float threshold) {
    const nb::gil_scoped_release released;
    segmenter_->set_threshold(threshold);
  }
  [[nodiscard]] std::optional<int> iterations() const {
    const nb::gil_scoped_release released;
    return segmenter_->iterations();
  }
  void set_iterations(int iterations) {
    const nb::gil_scoped_release released;
    segmenter_->set_iterations(iterations);
  }
  void set_keep_flow(bool keep) {
    const nb::gil_scoped_release released;
    segmenter_->set_keep_flow(keep);
  }
  void set_adapt(const std::string& adapt, bool background) {
    const nb::gil_scoped_release released;
    segmenter_->set_adapt(adapt == "on"     ? rv::Adapt::on
                          : adapt == "once" ? rv::Adapt::once
                                            : rv::Adapt::off,
                          background);
  }

 private:
  std::unique_ptr<rv::Segmenter> segmenter_;
};

/// `rvos_edge.UserError` if that package is installed, else an exception of this module.
nb::object user_error() {
  try {
    return nb::module_::import_("rvos_edge.errors").attr("UserError");
  } catch (nb::python_error& error) {
    if (!error.matches(PyExc_ImportError)) {
      throw;
    }
  }
  return nb::steal(PyErr_NewExceptionWithDoc(
      "rvos_edge_cpp.UserError", "Bad input. The message is one sentence that names the file or option and the remedy.",
      PyExc_ValueError, nullptr));
}

void bind_flow(nb::module_& m) {
  nb::class_<rv::FlowOptions>(m, "FlowOptions", "How much flow to compute; see rvos_edge.FlowOptions.")
      .def(
          "__init__",
          [](rv::FlowOptions* self, bool enabled, std::optional<int> iterations, int every, std::optional<double> still,
             std::optional<double> hold_fps,
             bool keep_flow) { new (self) rv::FlowOptions{enabled, iterations, every, still, hold_fps, keep_flow}; },
          nb::kw_only(), "enabled"_a = true, "iterations"_a = nb::none(), "every"_a = 1, "still"_a = nb::none(),
          "hold_fps"_a = nb::none(), "keep_flow"_a = false)
      .def_ro("enabled", &rv::FlowOptions::enabled)
      .def_ro("iterations", &rv::FlowOptions::iterations)
      .def_ro("every", &rv::FlowOptions::every)
      .def_ro("still", &rv::FlowOptions::still)
      .def_ro("hold_fps", &rv::FlowOptions::hold_fps)
      .def_ro("keep_flow", &rv::FlowOptions::keep_flow);
  nb::class_<rv::FlowDecision>(m, "FlowDecision", "Decision on the flow of one frame.")
      .def_prop_ro("action", [](const rv::FlowDecision& self) { return rv::flow_action_name(self.action); })
      .def_ro("reason", &rv::FlowDecision::reason)
      .def_ro("iterations", &rv::FlowDecision::iterations)
      .def_ro("warm", &rv::FlowDecision::warm)
      .def_ro("encode", &rv::FlowDecision::encode)
      .def_ro("late", &rv::FlowDecision::late);
}

void bind_segmenter(nb::module_& m) {
  nb::class_<PyResult>(m, "Result", "Masks of one frame; the arrays belong to the caller.")
      .def_ro("queries", &PyResult::queries, "The queries, in the order of the first axis of the arrays.")
      .def_ro("masks", &PyResult::masks, "bool [Q,H,W] at the size of the frame.")
      .def_ro("margins", &PyResult::margins, "float32 [Q,h,w], object minus background logit.")
      .def_ro("scores", &PyResult::scores, "float32 [Q], mean object probability over the mask.")
      .def_ro("presence", &PyResult::presence,
              "float32 [Q], probability that the query's object is in the frame, smoothed; 1 without a presence head.")
      .def_ro("present", &PyResult::present, "bool [Q], the same decided with hysteresis.")
      .def_ro("adapted", &PyResult::adapted, "bool [Q], queries that were taught by their own masks.")
      .def_ro("timings", &PyResult::timings, "Milliseconds by stage, in the order they ran.")
      .def_ro("flow_used", &PyResult::flow_used, "True if optical flow was computed on this frame.")
      .def_ro("flow", &PyResult::flow, "float32 [2,h,w]; None without keep_flow.")
      .def_ro("index", &PyResult::index, "Number of the frame since the last reset.")
      .def_ro("decision", &PyResult::decision, "Decision on the flow and its reason, or None.");
  nb::class_<PySegmenter>(m, "Segmenter",
                          "Segments what the queries name, frame after frame of one video.\n\n"
                          "Methods may be called from several threads; one works at a time and the others wait.")
      .def(nb::init<const path&, std::optional<std::pair<int, int>>, std::string, std::string, const rv::FlowOptions&,
                    std::optional<int>, float, bool>(),
           "bundle"_a, nb::kw_only(), "size"_a = nb::none(), "device"_a = "auto", "backend"_a = "auto",
           "flow"_a = rv::FlowOptions{}, "threads"_a = nb::none(), "threshold"_a = 0.0F, "keep_absent"_a = false,
           "Open a bundle directory and load its graphs; the arguments are those of rvos_edge.open.")
      .def("set_queries", &PySegmenter::set_queries, "queries"_a.none(),
           "Set the queries from the next frame on; after an error the old queries stay.")
      .def("check_queries", &PySegmenter::check_queries, "queries"_a.none(),
           "Normalised queries, as set_queries would take them; nothing changes.")
      .def_prop_ro("threshold", &PySegmenter::threshold, "Logit above which a pixel belongs to the object.")
      .def("set_threshold", &PySegmenter::set_threshold, "threshold"_a, "Set the threshold from the next frame on.")
      .def_prop_ro("iterations", &PySegmenter::iterations, "Updates per computed flow; None without flow.")
      .def("set_iterations", &PySegmenter::set_iterations, "iterations"_a,
           "Set the updates per computed flow from the next frame on.")
      .def("set_keep_flow", &PySegmenter::set_keep_flow, "keep"_a,
           "Choose whether results carry the flow from the next frame on.")
      .def("set_adapt", &PySegmenter::set_adapt, "adapt"_a, nb::kw_only(), "background"_a = false,
           "Choose if queries settle on their own first confident masks: off, once or on.")
      .def("step", &PySegmenter::step, "frame"_a.none(),
           "Segment the next frame, uint8 [H,W,3] BGR, without holding Python's lock.")
      .def("reset", &PySegmenter::reset, "Forget the video: the next frame is a first frame. The queries stay.")
      .def_prop_ro("queries", &PySegmenter::queries, "The current queries, normalised.")
      .def_prop_ro("backend_name", &PySegmenter::backend_name, "Backend and device, for people.")
      .def_prop_ro("backend_reason", &PySegmenter::backend_reason, "Reason for the choice of backend and device.");
}

}  // namespace

NB_MODULE(_core, m) {
  m.attr("__version__") = RVOS_EDGE_VERSION;
  const nb::object error = user_error();
  m.attr("UserError") = error;
  nb::register_exception_translator(
      [](const std::exception_ptr& thrown, void* type) {
        try {
          std::rethrow_exception(thrown);
        } catch (const rv::UserError& problem) {
          PyErr_SetString(static_cast<PyObject*>(type), problem.what());
        }
      },
      error.ptr());
  bind_flow(m);
  bind_segmenter(m);
  m.def(
      "available_backends",
      [](const path& bundle, const std::string& device) {
        return to_tuple(rv::available_backends(rv::Bundle::open(bundle), device));
      },
      "bundle"_a, "device"_a = "auto", "Backends that are built in and can run a bundle on a device.");
}

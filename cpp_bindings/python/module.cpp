// The Python module: the interface of rvos_edge.Segmenter on top of the C++ runtime.
#include <nanobind/nanobind.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

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

/// Python's lock is released while the library works.
using Released = nb::call_guard<nb::gil_scoped_release>;

void open_segmenter(rv::Segmenter* self, const path& bundle, std::optional<std::pair<int, int>> size,
                    std::string device, std::string backend, const rv::FlowOptions& flow, std::optional<int> threads,
                    float threshold, bool keep_absent) {
  rv::Options options;
  options.keep_absent = keep_absent;
  options.backend = std::move(backend);
  options.device = std::move(device);
  options.threads = threads;
  options.flow = flow;
  options.threshold = threshold;
  const auto chosen = size ? std::optional(rv::Size{size->first, size->second}) : std::nullopt;
  const nb::gil_scoped_release released;
  new (self) rv::Segmenter(rv::Bundle::open(bundle, chosen), options);
}

void set_queries(rv::Segmenter& self, nb::handle queries) {
  const std::vector<std::string> sentences = rvos_edge_python::to_queries(queries);
  const nb::gil_scoped_release released;
  self.set_queries(sentences);
}

PyResult step(rv::Segmenter& self, nb::handle frame) {
  const rvos_edge_python::Frame looked = rvos_edge_python::view_frame(frame);
  rv::Result result;
  {
    const nb::gil_scoped_release released;
    self.step(looked.view, result);
  }
  return to_python(result);
}

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
  nb::class_<PyResult>(m, "Result", "Masks of one frame, as rvos_edge.Result; the arrays belong to the caller.")
      .def_ro("queries", &PyResult::queries)
      .def_ro("masks", &PyResult::masks)
      .def_ro("margins", &PyResult::margins)
      .def_ro("scores", &PyResult::scores)
      .def_ro("presence", &PyResult::presence)
      .def_ro("present", &PyResult::present)
      .def_ro("adapted", &PyResult::adapted)
      .def_ro("timings", &PyResult::timings)
      .def_ro("flow_used", &PyResult::flow_used)
      .def_ro("flow", &PyResult::flow)
      .def_ro("index", &PyResult::index)
      .def_ro("decision", &PyResult::decision);
  using rv::Segmenter;
  nb::class_<Segmenter>(m, "Segmenter",
                        "Segments what the queries name, frame after frame of one video, as rvos_edge.Segmenter; the "
                        "threshold is a logit.\n\n"
                        "Methods may be called from several threads; one works at a time and the others wait.")
      .def("__init__", &open_segmenter, "bundle"_a, nb::kw_only(), "size"_a = nb::none(), "device"_a = "auto",
           "backend"_a = "auto", "flow"_a = rv::FlowOptions{}, "threads"_a = nb::none(), "threshold"_a = 0.0F,
           "keep_absent"_a = false)
      .def("set_queries", &set_queries, "queries"_a.none())
      .def(
          "check_queries",
          [](const Segmenter& self, nb::handle queries) {
            return to_tuple(self.check_queries(rvos_edge_python::to_queries(queries)));
          },
          "queries"_a.none())
      .def_prop_ro("threshold", &Segmenter::threshold, Released())
      .def("set_threshold", &Segmenter::set_threshold, "threshold"_a, Released())
      .def_prop_ro("iterations", &Segmenter::iterations, Released())
      .def("set_iterations", &Segmenter::set_iterations, "iterations"_a, Released())
      .def("set_keep_flow", &Segmenter::set_keep_flow, "keep"_a, Released())
      .def(
          "set_adapt",
          [](Segmenter& self, const std::string& adapt, bool background) {
            const rv::Adapt otherwise = adapt == "once" ? rv::Adapt::once : rv::Adapt::off;
            self.set_adapt(adapt == "on" ? rv::Adapt::on : otherwise, background);
          },
          "adapt"_a, nb::kw_only(), "background"_a = false, Released())
      .def("step", &step, "frame"_a.none())
      .def("reset", &Segmenter::reset, Released())
      .def_prop_ro("queries", &Segmenter::queries, Released())
      .def_prop_ro("backend_name", [](const Segmenter& self) { return self.backend_name(); })
      .def_prop_ro("backend_reason", &Segmenter::backend_reason, Released());
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

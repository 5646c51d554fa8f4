// The Python module: the interface of rvos_edge.Segmenter over the C++ runtime.
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
  for (const rv::Timing& timing : result.timings) {
    out.timings[timing.stage.c_str()] = timing.milliseconds;
  }
  out.flow_used = result.flow_used;
  out.flow = result.flow.size() == 0 ? nb::none() : rvos_edge_python::to_float(result.flow);
  out.index = result.index;
  out.decision = std::move(result.decision);
  return out;
}

/// A segmenter whose work leaves Python's lock to others.
class PySegmenter {
 public:
  PySegmenter(const path& bundle, std::optional<std::pair<int, int>> size, std::string device, std::string backend,
              const rv::FlowOptions& flow, std::optional<int> threads, float threshold) {
    rv::Options options;
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
  [[nodiscard]] const std::string& backend_reason() const { return segmenter_->backend_reason(); }

 private:
  std::unique_ptr<rv::Segmenter> segmenter_;
};

/// The Python runtime's exception where that is installed, so that who catches the one catches the other.
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
  nb::class_<rv::FlowOptions>(m, "FlowOptions", "How much flow is worth computing; see rvos_edge.FlowOptions.")
      .def(
          "__init__",
          [](rv::FlowOptions* self, bool enabled, std::optional<int> iterations, int every, bool warm_start,
             std::optional<double> scene_cut, std::optional<double> still, std::optional<double> hold_fps,
             int keep_frames, bool keep_flow) {
            new (self) rv::FlowOptions{enabled, iterations, every,       warm_start, scene_cut,
                                       still,   hold_fps,   keep_frames, keep_flow};
          },
          nb::kw_only(), "enabled"_a = true, "iterations"_a = nb::none(), "every"_a = 1, "warm_start"_a = true,
          "scene_cut"_a = 30.0, "still"_a = nb::none(), "hold_fps"_a = nb::none(), "keep_frames"_a = 4,
          "keep_flow"_a = false)
      .def_ro("enabled", &rv::FlowOptions::enabled)
      .def_ro("iterations", &rv::FlowOptions::iterations)
      .def_ro("every", &rv::FlowOptions::every)
      .def_ro("warm_start", &rv::FlowOptions::warm_start)
      .def_ro("scene_cut", &rv::FlowOptions::scene_cut)
      .def_ro("still", &rv::FlowOptions::still)
      .def_ro("hold_fps", &rv::FlowOptions::hold_fps)
      .def_ro("keep_frames", &rv::FlowOptions::keep_frames)
      .def_ro("keep_flow", &rv::FlowOptions::keep_flow);
  nb::class_<rv::FlowDecision>(m, "FlowDecision", "What was done about the flow of one frame.")
      .def_prop_ro("action", [](const rv::FlowDecision& self) { return rv::flow_action_name(self.action); })
      .def_ro("reason", &rv::FlowDecision::reason)
      .def_ro("iterations", &rv::FlowDecision::iterations)
      .def_ro("warm", &rv::FlowDecision::warm)
      .def_ro("encode", &rv::FlowDecision::encode)
      .def_ro("late", &rv::FlowDecision::late);
}

void bind_segmenter(nb::module_& m) {
  nb::class_<PyResult>(m, "Result", "The masks of one frame; the arrays are the caller's.")
      .def_ro("queries", &PyResult::queries, "What was asked for, in the order of the first axis of the arrays.")
      .def_ro("masks", &PyResult::masks, "bool [Q,H,W] at the size of the frame.")
      .def_ro("margins", &PyResult::margins, "float32 [Q,h,w], object minus background logit.")
      .def_ro("scores", &PyResult::scores, "float32 [Q], mean object probability over the mask.")
      .def_ro("timings", &PyResult::timings, "Milliseconds by stage, in the order they ran.")
      .def_ro("flow_used", &PyResult::flow_used, "Whether optical flow was computed on this frame.")
      .def_ro("flow", &PyResult::flow, "float32 [2,h,w], or None unless asked for.")
      .def_ro("index", &PyResult::index, "Number of the frame since the last reset.")
      .def_ro("decision", &PyResult::decision, "What was done about the flow and why, or None.");
  nb::class_<PySegmenter>(m, "Segmenter",
                          "Segments what the queries name, frame after frame of one video.\n\n"
                          "Methods may be called from several threads: one at a time works, the others wait.")
      .def(nb::init<const path&, std::optional<std::pair<int, int>>, std::string, std::string, const rv::FlowOptions&,
                    std::optional<int>, float>(),
           "bundle"_a, nb::kw_only(), "size"_a = nb::none(), "device"_a = "auto", "backend"_a = "auto",
           "flow"_a = rv::FlowOptions{}, "threads"_a = nb::none(), "threshold"_a = 0.0F,
           "Open a bundle directory and load its graphs; the arguments are those of rvos_edge.open.")
      .def("set_queries", &PySegmenter::set_queries, "queries"_a.none(),
           "Say what to segment from the next frame on; on an error the old queries stay.")
      .def("step", &PySegmenter::step, "frame"_a.none(),
           "Segment the next frame, uint8 [H,W,3] BGR; Python's lock is free meanwhile.")
      .def("reset", &PySegmenter::reset, "Forget the video: the next frame is a first frame. The queries stay.")
      .def_prop_ro("queries", &PySegmenter::queries, "What is being segmented.")
      .def_prop_ro("backend_name", &PySegmenter::backend_name, "Backend and device, for people.")
      .def_prop_ro("backend_reason", &PySegmenter::backend_reason, "Why that backend and device were chosen.");
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
      "bundle"_a, "device"_a = "auto", "The backends that are built in and can run a bundle on a device.");
}

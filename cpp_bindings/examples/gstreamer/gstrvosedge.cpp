// A GStreamer element that tints the objects that its queries name:
//
//     gst-launch-1.0 v4l2src ! videoconvert ! rvosedge bundle=my-bundle query="the red cup;a hand" ! videoconvert !
//     autovideosink
//
// Frames are BGR and changed in place. To write your own element, change `tint`.
#include <gst/gst.h>
#include <gst/video/gstvideofilter.h>
#include <gst/video/video.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

#include "rvos_edge/language.hpp"
#include "rvos_edge/rvos_edge.h"
#include "rvos_edge/segmenter.hpp"

namespace {

/// BGR colours of the queries, used cyclically.
constexpr guint8 colours[][3] = {{0, 159, 230}, {233, 180, 86}, {115, 158, 0}, {66, 228, 240}, {178, 114, 0}};

/// The properties and the objects made from them. GObject zeroes its instances, so this struct is allocated by hand.
struct State {
  std::mutex mutex;  // properties may be set from any thread
  std::string bundle;
  std::string query;
  std::string backend = "auto";
  double opacity = 0.5;
  bool changed = false;
  std::unique_ptr<rvos_edge::Segmenter> segmenter;
  rvos_edge::Result result;
};

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, ';');) {
    parts.push_back(part);
  }
  return parts;
}

void tint(const rvos_edge::Result& result, double opacity, GstVideoFrame* frame) {
  const auto height = static_cast<std::size_t>(GST_VIDEO_FRAME_HEIGHT(frame));
  const auto width = static_cast<std::size_t>(GST_VIDEO_FRAME_WIDTH(frame));
  const auto stride = static_cast<std::size_t>(GST_VIDEO_FRAME_PLANE_STRIDE(frame, 0));
  auto* pixels = static_cast<guint8*>(GST_VIDEO_FRAME_PLANE_DATA(frame, 0));
  const auto part = static_cast<int>(256 * opacity);
  for (std::size_t query = 0; query < result.queries.size(); ++query) {
    const std::uint8_t* mask = result.masks.data() + query * height * width;
    const guint8* colour = colours[query % std::size(colours)];
    for (std::size_t y = 0; y < height; ++y) {
      guint8* row = pixels + y * stride;
      for (std::size_t x = 0; x < width; ++x) {
        if (mask[y * width + x] != 0) {
          for (std::size_t c = 0; c < 3; ++c) {
            row[3 * x + c] = static_cast<guint8>((row[3 * x + c] * (256 - part) + colour[c] * part) >> 8);
          }
        }
      }
    }
  }
}

}  // namespace

G_BEGIN_DECLS

typedef struct _GstRvosEdge {
  GstVideoFilter parent;
  State* state;
} GstRvosEdge;

typedef struct _GstRvosEdgeClass {
  GstVideoFilterClass parent_class;
} GstRvosEdgeClass;

GType gst_rvos_edge_get_type(void);

G_END_DECLS

#define GST_RVOS_EDGE(object) (G_TYPE_CHECK_INSTANCE_CAST((object), gst_rvos_edge_get_type(), GstRvosEdge))

G_DEFINE_TYPE(GstRvosEdge, gst_rvos_edge, GST_TYPE_VIDEO_FILTER)

enum { PROP_0, PROP_BUNDLE, PROP_QUERY, PROP_BACKEND, PROP_OPACITY };

static void gst_rvos_edge_set_property(GObject* object, guint id, const GValue* value, GParamSpec* spec) {
  State& state = *GST_RVOS_EDGE(object)->state;
  const std::lock_guard<std::mutex> lock(state.mutex);
  const auto text = [value] {
    const gchar* string = g_value_get_string(value);
    return std::string(string != nullptr ? string : "");
  };
  switch (id) {
  case PROP_BUNDLE:
    state.bundle = text();
    break;
  case PROP_QUERY:
    state.query = text();
    state.changed = true;
    break;
  case PROP_BACKEND:
    state.backend = text();
    break;
  case PROP_OPACITY:
    state.opacity = g_value_get_double(value);
    break;
  default:
    G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, spec);
  }
}

/// Set the queries; those that the network is unlikely to understand are warned of on the bus.
static void set_queries(gpointer element, rvos_edge::Segmenter& segmenter, const std::vector<std::string>& queries) {
  segmenter.set_queries(queries);
  for (const std::string& query : queries) {
    if (const std::string doubt = rvos_edge::query_doubt(query); !doubt.empty()) {
      GST_ELEMENT_WARNING(element, LIBRARY, SETTINGS, ("%s", doubt.c_str()), (NULL));
    }
  }
}

static gboolean gst_rvos_edge_start(GstBaseTransform* transform) {
  State& state = *GST_RVOS_EDGE(transform)->state;
  const std::lock_guard<std::mutex> lock(state.mutex);
  try {
    rvos_edge::Options options;
    options.backend = state.backend;
    state.segmenter = std::make_unique<rvos_edge::Segmenter>(rvos_edge::Bundle::open(state.bundle), options);
    set_queries(transform, *state.segmenter, split(state.query));
    state.changed = false;
    GST_INFO_OBJECT(transform, "%s because %s", state.segmenter->backend_name().c_str(),
                    state.segmenter->backend_reason().c_str());
    return TRUE;
  } catch (const std::exception& error) {
    GST_ELEMENT_ERROR(transform, LIBRARY, INIT, ("%s", error.what()), (NULL));
    return FALSE;
  }
}

static gboolean gst_rvos_edge_stop(GstBaseTransform* transform) {
  State& state = *GST_RVOS_EDGE(transform)->state;
  const std::lock_guard<std::mutex> lock(state.mutex);
  state.segmenter.reset();
  return TRUE;
}

static GstFlowReturn gst_rvos_edge_transform_frame_ip(GstVideoFilter* filter, GstVideoFrame* frame) {
  State& state = *GST_RVOS_EDGE(filter)->state;
  try {
    double opacity = 0;
    std::vector<std::string> queries;
    {
      const std::lock_guard<std::mutex> lock(state.mutex);
      opacity = state.opacity;
      if (state.changed) {
        queries = split(state.query);
        state.changed = false;
      }
    }
    if (!queries.empty()) {
      set_queries(filter, *state.segmenter, queries);
    }
    state.segmenter->step({static_cast<const std::uint8_t*>(GST_VIDEO_FRAME_PLANE_DATA(frame, 0)),
                           GST_VIDEO_FRAME_HEIGHT(frame), GST_VIDEO_FRAME_WIDTH(frame), 3,
                           GST_VIDEO_FRAME_PLANE_STRIDE(frame, 0)},
                          state.result);
    tint(state.result, opacity, frame);
    return GST_FLOW_OK;
  } catch (const std::exception& error) {
    GST_ELEMENT_ERROR(filter, LIBRARY, FAILED, ("%s", error.what()), (NULL));
    return GST_FLOW_ERROR;
  }
}

static void gst_rvos_edge_finalize(GObject* object) {
  delete GST_RVOS_EDGE(object)->state;
  G_OBJECT_CLASS(gst_rvos_edge_parent_class)->finalize(object);
}

static void gst_rvos_edge_init(GstRvosEdge* self) {
  self->state = new State;
}

static void gst_rvos_edge_class_init(GstRvosEdgeClass* klass) {
  GObjectClass* object = G_OBJECT_CLASS(klass);
  object->set_property = gst_rvos_edge_set_property;
  object->finalize = gst_rvos_edge_finalize;
  const auto flags = static_cast<GParamFlags>(G_PARAM_WRITABLE | G_PARAM_STATIC_STRINGS);
  g_object_class_install_property(object, PROP_BUNDLE,
                                  g_param_spec_string("bundle", "Bundle", "Directory of the bundle", "", flags));
  g_object_class_install_property(
      object, PROP_QUERY,
      g_param_spec_string("query", "Query", "What to segment; several sentences are separated by ;", "", flags));
  g_object_class_install_property(object, PROP_BACKEND,
                                  g_param_spec_string("backend", "Backend", "auto or a name", "auto", flags));
  g_object_class_install_property(object, PROP_OPACITY,
                                  g_param_spec_double("opacity", "Opacity", "Of the masks", 0.0, 1.0, 0.5, flags));

  GstElementClass* element = GST_ELEMENT_CLASS(klass);
  gst_element_class_set_static_metadata(element, "Referring segmentation", "Filter/Effect/Video",
                                        "Tints what sentences name", "rvos-edge");
  GstCaps* caps = gst_caps_from_string(GST_VIDEO_CAPS_MAKE("BGR"));
  gst_element_class_add_pad_template(element, gst_pad_template_new("sink", GST_PAD_SINK, GST_PAD_ALWAYS, caps));
  gst_element_class_add_pad_template(element, gst_pad_template_new("src", GST_PAD_SRC, GST_PAD_ALWAYS, caps));
  gst_caps_unref(caps);

  GST_BASE_TRANSFORM_CLASS(klass)->start = gst_rvos_edge_start;
  GST_BASE_TRANSFORM_CLASS(klass)->stop = gst_rvos_edge_stop;
  GST_VIDEO_FILTER_CLASS(klass)->transform_frame_ip = gst_rvos_edge_transform_frame_ip;
}

static gboolean plugin_init(GstPlugin* plugin) {
  return gst_element_register(plugin, "rvosedge", GST_RANK_NONE, gst_rvos_edge_get_type());
}

#define PACKAGE "rvos-edge"
GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, rvosedge, "Referring video object segmentation", plugin_init,
                  "0.1.0", "Apache-2.0", "rvos-edge", "https://gstreamer.freedesktop.org")

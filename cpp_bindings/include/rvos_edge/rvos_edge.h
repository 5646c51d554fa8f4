/** @file
 *  The C interface, for other languages.
 *
 *  Every function that can fail returns a status and, where `error` is not NULL, fills it; nothing throws and there are
 *  no globals. Strings are UTF-8 and end with NUL. What `create` or `open` hands out belongs to the caller until the
 *  matching `destroy`, which takes NULL. Pointers that accessors return belong to the object they were asked of.
 *
 *  Thread rules: a segmenter may be used by several threads, one at a time works and the others wait; bundles are never
 *  changed; a result belongs to one thread at a time.
 */
#ifndef RVOS_EDGE_H
#define RVOS_EDGE_H

#include <stddef.h> /* NOLINT: this is C */
#include <stdint.h> /* NOLINT */

#ifdef __cplusplus
extern "C" {
#endif

/** What kind of bad input it was. */
typedef enum rvos_status {
  RVOS_OK = 0,
  RVOS_INVALID_ARGUMENT = 1,
  RVOS_NOT_FOUND = 2,
  RVOS_BAD_BUNDLE = 3,
  RVOS_BAD_QUERY = 4,
  RVOS_BAD_FRAME = 5,
  RVOS_UNSUPPORTED_BACKEND = 6,
  RVOS_ENGINE = 7,
  RVOS_INTERNAL = 8
} rvos_status;

/** Filled where a function fails: one sentence that names the file or option and the remedy, cut to fit. */
typedef struct rvos_error {
  rvos_status status;
  char message[1024];
} rvos_error;

/** An opened, verified bundle. */
typedef struct rvos_bundle rvos_bundle;
/** Graphs loaded for one video at a time. */
typedef struct rvos_segmenter rvos_segmenter;
/** The masks of one frame. */
typedef struct rvos_result rvos_result;

/** How to segment; `rvos_options_init` sets the defaults, and must be called first. */
typedef struct rvos_options {
  /** Set by `rvos_options_init`: tells a newer library which fields there are. */
  size_t struct_size;
  /** "auto" or a name such as "openvino"; NULL is "auto". */
  const char* backend;
  /** "auto", "cpu" or "cuda"; NULL is "auto". */
  const char* device;
  /** CPU threads; 0 for one per physical core. */
  int32_t threads;
  /** Logit above which a pixel belongs to the object. */
  float threshold;
  /** 0: no flow graph is loaded and the flow is zero. */
  int32_t flow_enabled;
  /** Update steps per computed flow; 0 takes the bundle's number. */
  int32_t flow_iterations;
  /** Compute the flow on every n-th frame. */
  int32_t flow_every;
  /** 0: every flow starts from zero. */
  int32_t flow_warm_start;
  /** Grey levels above which another picture is a cut; negative: there are no cuts. */
  double flow_scene_cut;
  /** Grey levels within which nothing moves; negative never looks. */
  double flow_still;
  /** Frames per second to hold by computing less flow; 0 for none. */
  double flow_hold_fps;
  /** With `flow_hold_fps`: frames for which a flow is kept. */
  int32_t flow_keep_frames;
  /** Not 0: put the flow into every result. */
  int32_t flow_keep_flow;
} rvos_options;

/** The library's version, such as "0.1.0". */
const char* rvos_version(void);

/** Set the defaults. */
void rvos_options_init(rvos_options* options);

/** Open a bundle directory.
 *  @param height, width  Of the network's input, one that it was exported for; 0, 0 for its first.
 *  @param bundle         Receives the bundle; NULL after an error. */
rvos_status rvos_bundle_open(const char* path, int32_t height, int32_t width, rvos_bundle** bundle, rvos_error* error);
/** Close a bundle; segmenters made of it live on. */
void rvos_bundle_destroy(rvos_bundle* bundle);
/** Height and width of the network's input. */
void rvos_bundle_size(const rvos_bundle* bundle, int32_t* height, int32_t* width);

/** Load the graphs of a bundle.
 *  @param options    NULL for the defaults; copied.
 *  @param segmenter  Receives the segmenter; NULL after an error. */
rvos_status rvos_segmenter_create(const rvos_bundle* bundle, const rvos_options* options, rvos_segmenter** segmenter,
                                  rvos_error* error);
void rvos_segmenter_destroy(rvos_segmenter* segmenter);
/** Backend and device, for people. */
const char* rvos_segmenter_backend(const rvos_segmenter* segmenter);

/** Say what to segment from the next frame on; on an error the old queries stay.
 *  @param queries  `count` strings, copied. */
rvos_status rvos_segmenter_set_queries(rvos_segmenter* segmenter, const char* const* queries, size_t count,
                                       rvos_error* error);
/** Segment the next frame.
 *  @param data    uint8 [height, width, 3] BGR, read during the call alone.
 *  @param stride  Bytes from one row to the next; 0 for rows without gaps.
 *  @param result  From `rvos_result_create`; overwritten, its memory reused. */
rvos_status rvos_segmenter_step(rvos_segmenter* segmenter, const uint8_t* data, int32_t height, int32_t width,
                                ptrdiff_t stride, rvos_result* result, rvos_error* error);
/** Forget the video: the next frame is a first frame. The queries stay. */
rvos_status rvos_segmenter_reset(rvos_segmenter* segmenter, rvos_error* error);

/** An empty result to hand to `rvos_segmenter_step`; NULL where memory is out. */
rvos_result* rvos_result_create(void);
void rvos_result_destroy(rvos_result* result);
/** Number of queries Q; 0 before the first step. */
size_t rvos_result_queries(const rvos_result* result);
/** Query `index`, or NULL. */
const char* rvos_result_query(const rvos_result* result, size_t index);
/** uint8 [Q, height, width], 1 where the object is; valid until the result is used again or destroyed. */
const uint8_t* rvos_result_masks(const rvos_result* result, int32_t* height, int32_t* width);
/** float [Q, height, width], object minus background logit at the network's resolution. */
const float* rvos_result_margins(const rvos_result* result, int32_t* height, int32_t* width);
/** float [Q], mean object probability over the mask. */
const float* rvos_result_scores(const rvos_result* result);
/** float [2, height, width], pixels of the network's input; NULL unless `flow_keep_flow`. */
const float* rvos_result_flow(const rvos_result* result, int32_t* height, int32_t* width);
/** Number of the frame since the last reset. */
int64_t rvos_result_index(const rvos_result* result);
/** 1 where optical flow was computed on this frame. */
int32_t rvos_result_flow_used(const rvos_result* result);
/** Why the flow was computed, kept or zeroed, in a few words; "" where there is none. */
const char* rvos_result_flow_reason(const rvos_result* result);
/** Number of timed stages, and one of them: its name (NULL past the end) and its milliseconds. */
size_t rvos_result_timings(const rvos_result* result);
const char* rvos_result_timing(const rvos_result* result, size_t index, double* milliseconds);

#ifdef __cplusplus
}
#endif

#endif

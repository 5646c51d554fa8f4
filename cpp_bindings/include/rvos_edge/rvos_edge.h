/** @file
 *  The C interface, for other languages.
 *
 *  Every function that can fail returns a status and fills `error` unless that is NULL. Nothing throws and there are no
 *  globals. Strings are UTF-8 and end with NUL. An object from `create` or `open` belongs to the caller until the
 *  matching `destroy`, which accepts NULL. Pointers that accessors return belong to the object.
 *
 *  Thread safety: a segmenter may be used by several threads; one works at a time and the others wait. Bundles never
 *  change. A result belongs to one thread at a time.
 */
#ifndef RVOS_EDGE_H
#define RVOS_EDGE_H

#include <stddef.h> /* NOLINT: this is C */
#include <stdint.h> /* NOLINT */

#include "rvos_edge/api.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Kind of bad input. */
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

/** Error of a call: one sentence that names the file or option and the remedy, cut to fit. */
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

/** Options of a segmenter. Call `rvos_options_init` first, which sets the defaults. New fields are only ever appended.
 */
typedef struct rvos_options {
  /** Size of the structure that the program was compiled with; fields beyond it keep their defaults. */
  size_t struct_size;
  /** "auto" or a name such as "openvino"; NULL is "auto". */
  const char* backend;
  /** "auto", "cpu", "cuda", or "cuda:1" for the second GPU; NULL is "auto". */
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
  /** Grey levels of change within which nothing moves; negative never checks. */
  double flow_still;
  /** Frames per second to hold by computing less flow; 0 for none. */
  double flow_hold_fps;
  /** Not 0: put the flow into every result. */
  int32_t flow_keep_flow;
  /** Not 0: keep the masks of absent queries, which are empty otherwise. */
  int32_t keep_absent;
} rvos_options;

/** The library's version, such as "0.1.0". */
RVOS_EDGE_API const char* rvos_version(void);

/** Set the defaults. `struct_size` is sizeof(rvos_options) of the program; call the macro without it. */
RVOS_EDGE_API void rvos_options_init_sized(rvos_options* options, size_t struct_size);
#define rvos_options_init(options) rvos_options_init_sized((options), sizeof(rvos_options))

/** Open a bundle directory.
 *  @param height, width  Input size of the network, one that it was exported for; 0, 0 for its first.
 *  @param bundle         Receives the bundle; NULL after an error. */
RVOS_EDGE_API rvos_status rvos_bundle_open(const char* path, int32_t height, int32_t width, rvos_bundle** bundle,
                                           rvos_error* error);
/** Close a bundle; its segmenters stay usable. */
RVOS_EDGE_API void rvos_bundle_destroy(rvos_bundle* bundle);
/** Height and width of the network's input. */
RVOS_EDGE_API void rvos_bundle_size(const rvos_bundle* bundle, int32_t* height, int32_t* width);

/** Load the graphs of a bundle.
 *  @param options    NULL for the defaults; copied.
 *  @param segmenter  Receives the segmenter; NULL after an error. */
RVOS_EDGE_API rvos_status rvos_segmenter_create(const rvos_bundle* bundle, const rvos_options* options,
                                                rvos_segmenter** segmenter, rvos_error* error);
RVOS_EDGE_API void rvos_segmenter_destroy(rvos_segmenter* segmenter);
/** Backend and device, for people. */
RVOS_EDGE_API const char* rvos_segmenter_backend(const rvos_segmenter* segmenter);

/** Set the queries from the next frame on; after an error the old queries stay.
 *  @param queries  `count` strings, copied: sentences, or "@FILE" for a taught query. */
RVOS_EDGE_API rvos_status rvos_segmenter_set_queries(rvos_segmenter* segmenter, const char* const* queries,
                                                     size_t count, rvos_error* error);
/** 1 if a query is unlikely to be understood, such as "le chien rouge", else 0.
 *  @param doubt  Receives the reason in one sentence, to be shown to the user; may be NULL. */
RVOS_EDGE_API int32_t rvos_query_doubt(const char* query, rvos_error* doubt);
/** Segment the next frame.
 *  @param data    uint8 [height, width, 3] BGR, read only during the call.
 *  @param stride  Bytes from one row to the next; 0 for rows without gaps.
 *  @param result  From `rvos_result_create`; overwritten, its memory reused. */
RVOS_EDGE_API rvos_status rvos_segmenter_step(rvos_segmenter* segmenter, const uint8_t* data, int32_t height,
                                              int32_t width, ptrdiff_t stride, rvos_result* result, rvos_error* error);
/** Set the logit above which a pixel belongs to the object, from the next frame on. */
RVOS_EDGE_API rvos_status rvos_segmenter_set_threshold(rvos_segmenter* segmenter, float threshold, rvos_error* error);
/** Set the updates per computed flow, at least 1, from the next frame on. */
RVOS_EDGE_API rvos_status rvos_segmenter_set_iterations(rvos_segmenter* segmenter, int32_t iterations,
                                                        rvos_error* error);
/** Choose if queries settle on their own first confident masks, from the next frame on.
 *  @param adapt       0: off, 1: once, 2: on, again after confidence fell.
 *  @param background  Not 0: learn in a thread while the stream goes on; 0: a frame waits for it. */
RVOS_EDGE_API rvos_status rvos_segmenter_set_adapt(rvos_segmenter* segmenter, int32_t adapt, int32_t background,
                                                   rvos_error* error);
/** Forget the video: the next frame is a first frame. The queries stay. */
RVOS_EDGE_API rvos_status rvos_segmenter_reset(rvos_segmenter* segmenter, rvos_error* error);

/** An empty result for `rvos_segmenter_step`; NULL if memory is exhausted. */
RVOS_EDGE_API rvos_result* rvos_result_create(void);
RVOS_EDGE_API void rvos_result_destroy(rvos_result* result);
/** Number of queries Q; 0 before the first step. */
RVOS_EDGE_API size_t rvos_result_queries(const rvos_result* result);
/** Query `index`, or NULL. */
RVOS_EDGE_API const char* rvos_result_query(const rvos_result* result, size_t index);
/** uint8 [Q, height, width], 1 inside the object; valid until the result is reused or destroyed. */
RVOS_EDGE_API const uint8_t* rvos_result_masks(const rvos_result* result, int32_t* height, int32_t* width);
/** float [Q, height, width], object minus background logit at the network's resolution. */
RVOS_EDGE_API const float* rvos_result_margins(const rvos_result* result, int32_t* height, int32_t* width);
/** float [Q], mean object probability over the mask. */
RVOS_EDGE_API const float* rvos_result_scores(const rvos_result* result);
/** float [Q], probability that the query's object is in the frame, smoothed over time; 1 without a presence head. */
RVOS_EDGE_API const float* rvos_result_presence(const rvos_result* result);
/** uint8 [Q], the same decided with hysteresis, 0 or 1; masks of absent queries are empty unless `keep_absent`. */
RVOS_EDGE_API const uint8_t* rvos_result_present(const rvos_result* result);
/** uint8 [Q], 1 for a query that was taught by its own masks. */
RVOS_EDGE_API const uint8_t* rvos_result_adapted(const rvos_result* result);
/** float [2, height, width], pixels of the network's input; NULL unless `flow_keep_flow`. */
RVOS_EDGE_API const float* rvos_result_flow(const rvos_result* result, int32_t* height, int32_t* width);
/** Index of the frame since the last reset. */
RVOS_EDGE_API int64_t rvos_result_index(const rvos_result* result);
/** 1 if optical flow was computed on this frame. */
RVOS_EDGE_API int32_t rvos_result_flow_used(const rvos_result* result);
/** Reason why the flow was computed, kept or zeroed; "" without flow. */
RVOS_EDGE_API const char* rvos_result_flow_reason(const rvos_result* result);
/** Number of timed stages, and one of them: its name (NULL past the end) and its milliseconds. */
RVOS_EDGE_API size_t rvos_result_timings(const rvos_result* result);
RVOS_EDGE_API const char* rvos_result_timing(const rvos_result* result, size_t index, double* milliseconds);

#ifdef __cplusplus
}
#endif

#endif

/* Compiles the C header as C; not run. */
#include "rvos_edge/rvos_edge.h"

rvos_status rvos_test_c_header(rvos_error* error);

rvos_status rvos_test_c_header(rvos_error* error) {
  rvos_bundle* bundle = NULL;
  rvos_options options;
  rvos_options_init(&options);
  return rvos_bundle_open("", 0, 0, &bundle, error);
}

/* A C program that uses the C interface. */
#include <rvos_edge/rvos_edge.h>
#include <string.h>

int refuses_a_missing_bundle(const char* path) {
  rvos_bundle* bundle = NULL;
  rvos_error error;
  const rvos_status status = rvos_bundle_open(path, 0, 0, &bundle, &error);
  return status == RVOS_NOT_FOUND && bundle == NULL && strstr(error.message, path) != NULL;
}

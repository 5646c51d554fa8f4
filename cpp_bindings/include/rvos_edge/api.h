/** @file
 *  RVOS_EDGE_API: marks what a shared library exports. Everything else is hidden. */
#ifndef RVOS_EDGE_API_H
#define RVOS_EDGE_API_H

#if defined(__GNUC__) || defined(__clang__)
#define RVOS_EDGE_API __attribute__((visibility("default")))
#else
#define RVOS_EDGE_API
#endif

#endif

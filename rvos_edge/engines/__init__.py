"""Inference backends behind one protocol."""

import sys

# Importing OpenVINO reports that to Google Analytics, from a process that it forks beside our threads. A machine on the
# edge reports to nobody: without this module OpenVINO uses an empty one of its own.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

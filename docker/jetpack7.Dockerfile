# The runtime, the live page and TensorRT on a Jetson with JetPack 7, for which NVIDIA serves the images of Arm servers:
# this one has Ubuntu 24.04, Python 3.12, CUDA 13.0 and TensorRT 10.13. On the board, from the root of the checkout:
#   docker build -f docker/jetpack7.Dockerfile -t rvos-edge .
#   docker run --rm --runtime nvidia --network host --device /dev/video0 rvos-edge run 0 "a person" --serve
FROM nvcr.io/nvidia/tensorrt:25.08-py3
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv gstreamer1.0-tools \
    && rm -rf /var/lib/apt/lists/*
ENV VIRTUAL_ENV=/opt/rvos-edge PATH=/opt/rvos-edge/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY . /src
# TensorRT's module lies in the system's Python.
RUN python3 -m venv --system-site-packages /opt/rvos-edge \
    && pip install "/src[serve,cuda]" "cuda-bindings>=13" \
    && rm -rf /src
WORKDIR /data
ENTRYPOINT ["rvos-edge"]
CMD ["doctor"]

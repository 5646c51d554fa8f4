# The runtime, the live page and OpenVINO on a CPU, for x86 and Arm, without a screen. From the checkout's root:
#   docker build -f docker/cpu.Dockerfile -t rvos-edge .
#   docker run --rm -v "$PWD:/data" --user "$(id -u)" rvos-edge run clip.mp4 "a dog"
FROM debian:bookworm-slim
# The virtual environment needs no system package but Python.
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
ENV VIRTUAL_ENV=/opt/rvos-edge PATH=/opt/rvos-edge/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY . /src
RUN python3 -m venv /opt/rvos-edge \
    && pip install "/src[serve,openvino,mqtt]" -c /src/constraints.txt \
    && rm -rf /src
RUN useradd --create-home rvos && install -d -o rvos /data
USER rvos
WORKDIR /data
ENTRYPOINT ["rvos-edge"]
CMD ["doctor"]

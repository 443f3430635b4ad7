# ebp_cuda with its CUDA kernels: docker build -f docker/cuda.Dockerfile -t ebp_cuda:cuda .
# Fewer architectures build faster: --build-arg ARCHS="80 90". To run: docker run --gpus all ebp_cuda:cuda
# Written and linted; no image has been built from it yet.
FROM nvidia/cuda:12.9.1-devel-ubuntu24.04 AS build
ARG ARCHS="75 80 86 89 90 100 120"
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ python3-venv && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
RUN pip install --no-cache-dir torch==2.13.0 --index-url https://download.pytorch.org/whl/cu129
WORKDIR /src
COPY . .
RUN EBP_CUDA_ARCHS="$ARCHS" pip install --no-cache-dir .

FROM ubuntu:24.04
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
RUN useradd --create-home --uid 1001 user
USER 1001
WORKDIR /home/user
ENTRYPOINT ["ebp-cuda"]
CMD ["doctor"]

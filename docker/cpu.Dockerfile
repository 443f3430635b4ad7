# ebp_cuda on the CPU: docker build -f docker/cpu.Dockerfile -t ebp_cuda:cpu .
# Written and linted; no image has been built from it yet.
FROM python:3.11-slim-bookworm AS build
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
RUN pip install --no-cache-dir torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
WORKDIR /src
COPY . .
RUN EBP_CUDA_ARCHS="" pip install --no-cache-dir .

FROM python:3.11-slim-bookworm
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
RUN useradd --create-home --uid 1001 user
USER 1001
WORKDIR /home/user
ENTRYPOINT ["ebp-cuda"]
CMD ["doctor"]

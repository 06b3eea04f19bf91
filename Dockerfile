# An image with the command: one build for a CPU, one for NVIDIA cards, run by a user without rights.
#
#   docker build -t twicing-bench .                                      # CPU
#   docker build -t twicing-bench:cuda --build-arg TORCH=cu126 .         # NVIDIA; needs a driver for CUDA 12.6
#   docker run --rm -v "$PWD:/work" twicing-bench twicing-bench attack --model deit-tw --eps 1/255
#   docker run --rm --gpus all --shm-size 16g -v "$PWD:/work" -v /data:/data:ro twicing-bench:cuda \
#       twicing-bench run plan.toml --executor ray
#
# torch brings its own CUDA libraries, so the base is the same for both.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim AS build
ARG TORCH=cpu
ARG EXTRAS=ray
WORKDIR /source
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN pip install torch torchvision --index-url https://download.pytorch.org/whl/${TORCH}
COPY pyproject.toml README.md LICENSE ./
COPY attacks attacks
COPY corruptions corruptions
COPY plans plans
COPY recipes recipes
COPY results/published results/published
COPY robustbench_twicing robustbench_twicing
RUN pip install ".[${EXTRAS}]" && find /opt/venv -name __pycache__ -prune -exec rm -rf {} +

FROM python:${PYTHON}-slim
COPY --from=build /opt/venv /opt/venv
RUN useradd --create-home --uid 1000 bench && mkdir /work && chown bench /work
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER bench
WORKDIR /work
CMD ["twicing-bench", "--help"]

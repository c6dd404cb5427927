# One target per dependency set; docs/deployment.md has their sizes.
#   docker build -t openanomaly .                                  every role, the built-in model among them
#   docker build --target inference-gpu -t openanomaly:gpu .       the inference role with any Chronos checkpoint
#   docker build --target inference-cpu -t openanomaly:cpu .       the same with a torch that has no CUDA
#   docker build --build-arg EXTRAS="fast pull api mongo" .        with other extras of pyproject.toml
#   docker build --build-arg EXTRAS="fast pull mongo playground" . the playground
ARG PYTHON=3.12.12-slim-bookworm
ARG EXTRAS="fast"

FROM python:${PYTHON} AS build
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=/opt/openanomaly
RUN --mount=type=cache,target=/root/.cache/pip pip install uv==0.13.9
WORKDIR /src
ARG EXTRAS
# Dependencies first: they change more rarely than the code.
COPY pyproject.toml uv.lock ./
RUN --mount=type=cache,target=/root/.cache/uv \
    for extra in $EXTRAS; do set -- "$@" --extra "$extra"; done \
    && uv sync --frozen --no-dev --no-install-project "$@"
COPY README.md LICENSE ./
COPY stream stream

FROM build AS build-base
ARG EXTRAS
RUN --mount=type=cache,target=/root/.cache/uv \
    for extra in $EXTRAS; do set -- "$@" --extra "$extra"; done \
    && uv sync --frozen --no-dev --no-editable "$@"

# torch of the lock file brings CUDA: its libraries are wheels of their own. The environment was built, not the image.
FROM build AS build-gpu
ARG EXTRAS
RUN --mount=type=cache,target=/root/.cache/uv \
    for extra in chronos $EXTRAS; do set -- "$@" --extra "$extra"; done \
    && uv sync --frozen --no-dev --no-editable "$@"

# The same version of torch without CUDA is on an index of PyTorch's; all else is as the lock file says. Never built:
# a test runs this step up to the downloads, with PyPI in the place of that index.
FROM build AS build-cpu
ARG EXTRAS
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=cache,target=/root/.cache/uv \
    for extra in chronos $EXTRAS; do set -- "$@" --extra "$extra"; done \
    && uv export --quiet --frozen --no-dev --no-hashes --no-emit-project "$@" > /tmp/locked \
    && grep -oE '^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)' /tmp/locked > /tmp/apart \
    && while read -r name; do set -- "$@" --no-install-package "$name"; done < /tmp/apart \
    && uv sync --frozen --no-dev --no-editable "$@" \
    && uv pip install --python /opt/openanomaly --no-deps --index-url "$TORCH_INDEX" \
           "$(grep -oE '^torch==[^ ;]+' /tmp/locked)"

FROM python:${PYTHON} AS runtime
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin openanomaly \
    && install -d -o openanomaly -g openanomaly /var/lib/openanomaly
# /tmp and /var/lib/openanomaly are all that is written to: the root may be read-only. Compiled loops are kept
# in /tmp.
ENV PATH=/opt/openanomaly/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 NUMBA_CACHE_DIR=/tmp/numba \
    HF_HOME=/var/lib/openanomaly/huggingface
WORKDIR /var/lib/openanomaly
USER 10001
EXPOSE 9201
# Whether the process lives; /-/ready says whether it has work done. The API (9202) and the playground (9204) have
# ports of their own and are given their own check, as in docker-compose.yml.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD \
    ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9201/-/healthy', timeout=4)"]
ENTRYPOINT ["openanomaly"]
CMD ["run"]
ARG VERSION=0.1.0
ARG REVISION=""
LABEL org.opencontainers.image.title="OpenAnomaly" \
      org.opencontainers.image.description="Anomaly detection for Prometheus metrics" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

FROM runtime AS inference-gpu
COPY --from=build-gpu /opt/openanomaly /opt/openanomaly
CMD ["inference"]

FROM runtime AS inference-cpu
COPY --from=build-cpu /opt/openanomaly /opt/openanomaly
CMD ["inference"]

FROM runtime AS base
COPY --from=build-base /opt/openanomaly /opt/openanomaly

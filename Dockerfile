# One target per dependency set. Only `chronos` carries torch (5 GB):
#   docker build -t openanomaly .                            every role, the built-in model among them
#   docker build --target chronos -t openanomaly:chronos .   the inference role with any Chronos checkpoint
FROM python:3.12-slim-bookworm AS build
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=/opt/openanomaly
RUN pip install --no-cache-dir uv==0.13.*
WORKDIR /src
# Dependencies first: they change more rarely than the code.
COPY pyproject.toml uv.lock ./
RUN uv sync --frozen --no-dev --extra fast --no-install-project
COPY README.md LICENSE ./
COPY stream stream
RUN uv sync --frozen --no-dev --extra fast --no-editable

FROM build AS build-chronos
RUN uv sync --frozen --no-dev --extra fast --no-editable --extra chronos

FROM python:3.12-slim-bookworm AS runtime
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin openanomaly \
    && install -d -o openanomaly -g openanomaly /var/lib/openanomaly
# Compiled loops are kept where a read-only root leaves a place.
ENV PATH=/opt/openanomaly/bin:$PATH PYTHONUNBUFFERED=1 NUMBA_CACHE_DIR=/tmp/numba
WORKDIR /var/lib/openanomaly
USER 10001
EXPOSE 9201
ENTRYPOINT ["openanomaly"]
CMD ["run"]

FROM runtime AS chronos
COPY --from=build-chronos /opt/openanomaly /opt/openanomaly

FROM runtime AS base
COPY --from=build /opt/openanomaly /opt/openanomaly

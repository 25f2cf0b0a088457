# The operator and the command line, as one image.
#
#   docker build -t REGISTRY/memtenant:0.2.0 .
#
# Pin the base by digest in what you ship, so that a rebuild is the same image:
#   --build-arg BASE_IMAGE=docker.io/library/python:3.13-slim@sha256:<64 hex digits>
# (`docker buildx imagetools inspect python:3.13-slim` prints today's.)
ARG BASE_IMAGE=docker.io/library/python:3.13-slim

FROM ${BASE_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements.lock docker/locked.py ./
# The lock file without its hashes, as constraints for finding out what is needed of it.
RUN sed -e '/^ *--hash=/d' -e 's/ *\\$//' requirements.lock > versions.txt \
    && python3 -m venv /build \
    && /build/bin/pip install --quiet --dry-run --ignore-installed --constraint versions.txt \
        --report backend.json hatchling \
    && python3 locked.py requirements.lock backend.json > backend.lock \
    && /build/bin/pip install --require-hashes --no-deps --requirement backend.lock
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
# Whatever is installed came with a hash in the lock file; the wheel is built from what is here.
RUN /build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist . \
    && wheel="$(ls dist/memtenant-*.whl)" \
    && /build/bin/pip install --quiet --dry-run --ignore-installed --constraint versions.txt \
        --report runtime.json "${wheel}[operator]" \
    && python3 locked.py requirements.lock runtime.json > runtime.lock \
    && python3 -m venv --without-pip /opt/memtenant \
    && /build/bin/pip --python /opt/memtenant/bin/python install --require-hashes --no-deps \
        --requirement runtime.lock \
    && /build/bin/pip --python /opt/memtenant/bin/python install --no-deps "${wheel}" \
    && /opt/memtenant/bin/python -m compileall -q /opt/memtenant/lib

FROM ${BASE_IMAGE}
ARG VERSION=0.2.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="memtenant" \
      org.opencontainers.image.description="Isolated, encrypted, quota-bound, auditable memory for every team's AI agents, in Redis or Valkey" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=build /opt/memtenant /opt/memtenant
# Nothing is written to the image's file system: the chart mounts it read-only, with a small /tmp.
ENV PATH=/opt/memtenant/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
# By number, so that Kubernetes can see that it is not root.
USER 65532:65532
WORKDIR /tmp
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["memtenant"]
CMD ["controller"]

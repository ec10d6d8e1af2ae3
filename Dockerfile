# The workers, Flower and the command line in one image. To add your agents:
#   FROM agno-workers
#   COPY myapp myapp            (and AGNO_IMPORTS=myapp.agents)
# or mount them: config/compose.override.yml. With the package from an index, `agno-workers init` writes a shorter Dockerfile.
FROM python:3.13-slim AS build
WORKDIR /build
COPY requirements.lock ./
RUN pip install --no-cache-dir "$(grep -oE '^uv==[^ ]+' requirements.lock)" && uv venv /venv
COPY . .
# The lock as constraints: its versions and its hashes, without the tools of development and the embedded servers.
# `knowledge` reads documents, `objects` reads them from S3, GCS and Azure: the worker for knowledge needs them.
RUN uv pip install --no-cache --python /venv/bin/python --constraint requirements.lock '.[knowledge,objects]'

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home agno
WORKDIR /srv
COPY --from=build /venv /venv
COPY config config
ENV PATH=/venv/bin:$PATH PYTHONPATH=/srv PYTHONUNBUFFERED=1
USER agno
CMD ["agno-workers", "--help"]

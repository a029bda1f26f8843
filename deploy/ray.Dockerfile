# What deploy/kuberay.yaml runs: Ray with faissbase beside it, and no entry point, for KubeRay gives the command.
# docker build -f deploy/ray.Dockerfile -t faissbase-ray .
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
# Ray's agent answers KubeRay's probes, its client server the job: both come with these extras of Ray's own.
RUN python -m venv /opt/faissbase && /opt/faissbase/bin/pip install --no-cache-dir ".[ray,arrow]" "ray[default,client]"

FROM python:3.12-slim
# The probes call wget.
RUN apt-get update && apt-get install -y --no-install-recommends wget && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/faissbase /opt/faissbase
RUN useradd --uid 10001 --create-home faissbase && mkdir /cache && chown 10001 /cache
ENV PATH=/opt/faissbase/bin:$PATH
ENV RAY_USAGE_STATS_ENABLED=0
ENV PYTHONDONTWRITEBYTECODE=1
USER 10001
VOLUME /cache

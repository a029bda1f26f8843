# docker build -t faissbase .
# docker run --rm -v faissbase:/data faissbase keys create --tenant acme --scopes read,write
# docker run -d -p 127.0.0.1:8000:8000 -v faissbase:/data --read-only --tmpfs /tmp faissbase
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN python -m venv /opt/faissbase && /opt/faissbase/bin/pip install --no-cache-dir ".[server,arrow]"

FROM python:3.12-slim
COPY --from=build /opt/faissbase /opt/faissbase
RUN useradd --system --uid 10001 --no-create-home faissbase && mkdir /data && chown 10001 /data
ENV PATH=/opt/faissbase/bin:$PATH
ENV FAISSBASE_DATA=/data
ENV FAISSBASE_HOST=0.0.0.0
# Keys are needed all the same; TLS is for the proxy or the mesh in front, or for FAISSBASE_TLS_CERT and _KEY.
ENV FAISSBASE_TLS_ELSEWHERE=true
ENV FAISSBASE_LOG_FORMAT=json
ENV PYTHONDONTWRITEBYTECODE=1
USER 10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s CMD ["python", "-m", "faissbase.server.probe"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["faissbase"]
CMD ["serve"]

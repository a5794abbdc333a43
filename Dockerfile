# An image of this clone: docker build -t inkwell . (or `make image`). How to use it, with mirrors and without a
# network: docs/en/how-to/deploy.md, docs/zh/how-to/deploy.md.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# pip reads these from its environment: a mirror, a folder of wheels (`make wheels`), and whether to use only that.
ARG PIP_INDEX_URL
ARG PIP_TRUSTED_HOST
ARG PIP_NO_INDEX
ARG WHEELS=locks
ARG MODEL=models/bge-small-zh-v1.5
ENV PIP_FIND_LINKS=/wheels PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1
WORKDIR /source
COPY ${WHEELS} /wheels
COPY locks locks
RUN python3 -m venv /opt/inkwell && python3 -m venv /tools
RUN /opt/inkwell/bin/python -m pip install --no-cache-dir --no-deps --require-hashes -r locks/run.txt
RUN /tools/bin/python -m pip install --no-cache-dir --no-deps --require-hashes -r locks/bundle.txt
COPY pyproject.toml README.md LICENSE ./
COPY server server
COPY export export
# The kernels are compiled here, where there is a C compiler or a network to install one from. If not, the image has
# those that the clone has, or none: then ONNX Runtime computes.
RUN command -v cc >/dev/null || (apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev) || true
RUN /opt/inkwell/bin/python -m server.inference.kernels.compiler || true
RUN /tools/bin/python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /built .
RUN /opt/inkwell/bin/python -m pip install --no-cache-dir --no-deps --no-index /built/*.whl
# The folder keeps its name, which is that of the model.
COPY ${MODEL} /${MODEL}
RUN /opt/inkwell/bin/python -P -m export /${MODEL} --out /exported/onnx-int8
RUN /opt/inkwell/bin/python -m pip uninstall --yes pip && mkdir /empty

FROM ${BASE}
COPY --from=build /opt/inkwell /opt/inkwell
COPY --from=build /exported/onnx-int8 /opt/model/onnx-int8
COPY deploy/health.py /opt/health.py
COPY --from=build --chown=10001:10001 --chmod=0700 /empty /data
# Inside a container every address is needed. The health check uses the socket, so it works with every address,
# port and certificate.
ENV INKWELL_HOST=0.0.0.0 INKWELL_DATA=/data INKWELL_MODEL=/opt/model/onnx-int8
ENV INKWELL_UNIX_SOCKET=/tmp/inkwell.sock ORT_DISABLE_TELEMETRY=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
# It checks that the process answers, not that it is ready: a restart would not help against a full disk.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["/opt/inkwell/bin/python", "/opt/health.py"]
ENTRYPOINT ["/opt/inkwell/bin/inkwell"]
CMD ["serve"]

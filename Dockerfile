# The server alone, without Envoy: an image for any platform that the locked wheels exist for.
FROM python:3.13-slim-trixie AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1
WORKDIR /src
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN python -m venv /build \
 && /build/bin/pip install --require-hashes --requirement requirements/build.txt \
 && python -m venv --without-pip /opt/xdserve \
 && /build/bin/pip --python /opt/xdserve/bin/python install --require-hashes --only-binary :all: \
      --requirement requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY xds xds
COPY translator translator
COPY bootstrap bootstrap
COPY xdserve xdserve
COPY examples examples
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /build/bin/pip --python /opt/xdserve/bin/python install --no-deps --no-index /wheels/*.whl \
 && /opt/xdserve/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/xdserve

FROM python:3.13-slim-trixie
LABEL org.opencontainers.image.title="xdserve" org.opencontainers.image.licenses="Apache-2.0"
# Nothing is written: the image runs with a read-only root file system and as any user.
ENV PATH=/opt/xdserve/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
COPY --from=build /opt/xdserve /opt/xdserve
USER 65532:65532
EXPOSE 18000 19000
ENTRYPOINT ["xdserve"]
CMD ["--help"]

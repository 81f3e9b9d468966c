# The service as a non-root user that needs to write nowhere but /tmp.
#   docker build --tag rewardsvc .
#   docker run --rm --read-only --tmpfs /tmp --publish 127.0.0.1:8000:8000 --env REWARDSVC_API_KEYS rewardsvc
# To add a reward of your own: FROM rewardsvc, USER root, RUN pip install my-reward, USER 10001:10001.

FROM debian:bookworm-slim AS base
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*

FROM base AS build
RUN apt-get update && apt-get install --yes --no-install-recommends python3-venv
WORKDIR /src
# The packages change seldom and the code often: apart, a new version of the code is a small layer, made in seconds.
COPY requirements.lock requirements-build.lock ./
RUN python3 -m venv /opt/rewardsvc \
    && /opt/rewardsvc/bin/pip install --no-cache-dir --require-hashes --requirement requirements.lock \
    && python3 -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes --requirement requirements-build.lock
COPY . .
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /opt/wheels . \
    && /opt/rewardsvc/bin/pip install --no-deps --no-index --prefix /opt/code /opt/wheels/*.whl

FROM base
RUN groupadd --gid 10001 rewardsvc \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin rewardsvc
COPY --from=build /opt/rewardsvc /opt/rewardsvc
COPY --from=build /opt/code /opt/rewardsvc
ENV PATH=/opt/rewardsvc/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# A number, so that an orchestrator can see that it is not root.
USER 10001:10001
EXPOSE 8000
# Ready, not only alive: while it drains or while a self-test fails, nobody should send it work.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python3", "-I", "-c", \
    "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/readyz'); raise SystemExit(c.getresponse().status != 200)"]
# An init as process 1: the service kills workers and sandboxed programs, and somebody must reap their orphans.
ENTRYPOINT ["tini", "--"]
CMD ["rewardsvc", "serve", "--host", "0.0.0.0", "--port", "8000"]

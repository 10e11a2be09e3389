# sparkpost-relay as a container: small, not root, and content with a read-only root file system.
#   docker build -t sparkpost-relay .
#   docker run --read-only --tmpfs /tmp -e SPARKPOST_API_KEY=… -e RELAY_NETWORKS=172.16.0.0/12 sparkpost-relay

FROM docker.io/library/python:3.12-slim AS build
WORKDIR /src
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN python -m venv /uv && /uv/bin/pip install --no-cache-dir --disable-pip-version-check 'uv>=0.5'
ENV UV_PROJECT_ENVIRONMENT=/opt/sparkpost-relay UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_NO_CACHE=1
# Trust what the system trusts, as pip does. Behind a proxy that signs its own certificates, build with its authority mounted over
# /etc/ssl/certs/ca-certificates.crt.
ENV UV_SYSTEM_CERTS=1
# Dependencies first: they change less often than the relay.
COPY pyproject.toml uv.lock ./
RUN /uv/bin/uv sync --frozen --no-dev --no-install-project
COPY README.md LICENSE hatch_build.py ./
COPY relay relay
# What every message goes through is compiled.
RUN HATCH_BUILD_HOOKS_ENABLE=1 /uv/bin/uv sync --frozen --no-dev --no-editable

FROM docker.io/library/python:3.12-slim
RUN useradd --system --uid 10025 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin relay
# For the spool of those who want one: a new named volume over it has its owner, and so is writable.
RUN install -d -m 700 -o relay -g relay /var/lib/sparkpost-relay
COPY --from=build /opt/sparkpost-relay /opt/sparkpost-relay
ENV PATH=/opt/sparkpost-relay/bin:$PATH PYTHONUNBUFFERED=1
# It listens for its neighbours; RELAY_NETWORKS says who they are, and without it the relay refuses to start.
ENV RELAY_LISTEN=0.0.0.0:2525
# No volume, no spool: what SparkPost cannot take now is 451, and the application's own retry is the queue. With one:
#   -v spool:/var/lib/sparkpost-relay -e RELAY__SPOOL__URL=sqlite:/var/lib/sparkpost-relay/spool.db
ENV RELAY__SPOOL__URL=none
USER 10025:10025
EXPOSE 2525
# Red until it takes mail, and whenever it does not; an outage of SparkPost alone does not restart anything.
# buildah and podman keep this line with `--format docker` only.
HEALTHCHECK --interval=30s --timeout=10s --start-period=15s CMD ["sparkpost-relay", "health"]
# SIGTERM: messages in hand are answered, then it exits 0.
STOPSIGNAL SIGTERM
ENTRYPOINT ["sparkpost-relay"]
CMD ["serve"]

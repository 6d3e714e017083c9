# The six services, one image: the targets below differ in what they run, and share every layer.
#
#   docker compose up --wait                                  builds what is missing and starts the stack
#   docker build --target mmu -t lamina/mmu .                 one service
#   docker build --build-arg BASE=… .                         on another base: Debian's or any other with Python ≥ 3.11
#
# Wheels that lie in `wheels/` are used instead of a package registry; `.ci/images` puts them there.

ARG BASE=python:3.13-slim

FROM ${BASE} AS install
# What the stack needs, in a layer that stays the same while only our own code changes.
COPY pyproject.toml wheels* /src/wheels/
RUN python3 -m venv /opt/lamina \
    && /opt/lamina/bin/python -c 'import tomllib; project = tomllib.load(open("/src/wheels/pyproject.toml", "rb")); \
print(*project["project"]["dependencies"], *project["build-system"]["requires"], sep="\n")' >/tmp/requirements \
    && if ls /src/wheels/*.whl >/dev/null 2>&1; then offline="--no-index --find-links /src/wheels"; fi \
    && /opt/lamina/bin/pip install --no-cache-dir --no-compile $offline -r /tmp/requirements
COPY . /src
# What numba compiles is compiled here, so that a service starts at once.
RUN /opt/lamina/bin/pip install --no-cache-dir --no-deps --no-build-isolation /src \
    && cd /src && PYTHONPATH=tools /opt/lamina/bin/python -m lamina_tools.warm /opt/lamina \
    && mv "$(cat /opt/lamina/.lamina-warm)" /opt/lamina/numba-cache && rm -r /opt/lamina/numba /opt/lamina/.lamina-warm \
    && /opt/lamina/bin/python -m compileall -q /opt/lamina/lib

FROM ${BASE} AS runtime
# The user may write its state, the compiled code, which another CPU compiles anew, and the folder of the memory bus.
RUN useradd --uid 10001 --create-home --home-dir /var/lib/lamina lamina && mkdir /bus && chown lamina /bus
COPY --from=install --chown=lamina /opt/lamina /opt/lamina
ENV PATH=/opt/lamina/bin:$PATH NUMBA_CACHE_DIR=/opt/lamina/numba-cache PYTHONUNBUFFERED=1 \
    LAMINA_HOST=h1 LAMINA_STATE_DIR=/var/lib/lamina LAMINA_BUS=/bus/h1.ram
# A container listens on all of its addresses, and they are those of a network of its own: plain is as good as loopback
# there while ports are published on 127.0.0.1 alone. On a network of others give LAMINA_TLS_DIR, which stands above this.
ENV LAMINA_PLAIN_NETWORK=1
USER lamina
WORKDIR /var/lib/lamina

FROM runtime AS hardware
ENV LAMINA_LISTEN=0.0.0.0:50051
EXPOSE 50051
CMD ["python", "-m", "lamina_hardware"]

FROM runtime AS mmu
ENV LAMINA_LISTEN=0.0.0.0:50052
EXPOSE 50052
CMD ["python", "-m", "lamina_mmu"]

FROM runtime AS hypervisor
ENV LAMINA_LISTEN=0.0.0.0:50053
EXPOSE 50053
CMD ["python", "-m", "lamina_hypervisor"]

FROM runtime AS vswitch
ENV LAMINA_LISTEN=0.0.0.0:50054
EXPOSE 50054
CMD ["python", "-m", "lamina_vswitch"]

FROM runtime AS container-runtime
ENV LAMINA_LISTEN=0.0.0.0:50055
EXPOSE 50055
CMD ["python", "-m", "lamina_container_runtime"]

FROM runtime AS orchestrator
ENV LAMINA_LISTEN=0.0.0.0:50056
EXPOSE 50056
CMD ["python", "-m", "lamina_orchestrator"]

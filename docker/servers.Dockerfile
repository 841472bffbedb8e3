# The Prefect and MLflow servers, at the very versions the flows are tested with. Upstream's images would do neither: Prefect's brings a
# FastAPI of its own choice (newer ones break its server), and MLflow's runs as root and has no PostgreSQL driver.
FROM python:3.11.14-slim-bookworm

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY docker/servers.lock /opt/servers.lock
RUN pip install --require-hashes --no-deps -r /opt/servers.lock && pip check
# A named volume takes the owner of the folder it covers.
RUN useradd --uid 10001 --home-dir /tmp --no-create-home tidecast && install -d -o 10001 -g 10001 /artifacts

ENV PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /tmp

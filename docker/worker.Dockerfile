# tidecast itself, serving its flows.
FROM python:3.11.14-slim-bookworm

# As in the Makefile: name another index here for the CPU build of torch.
ARG TORCH_PIP_ARGS=""
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY pyproject.toml requirements.lock /opt/tidecast/
WORKDIR /opt/tidecast
RUN pip install ${TORCH_PIP_ARGS} "$(sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)"
RUN pip install --require-hashes --no-deps -r requirements.lock
COPY README.md LICENSE ./
COPY models models
COPY pipeline pipeline
COPY flows flows
RUN pip install --no-deps --no-build-isolation . && pip check
# A named volume takes the owner of the folder it covers.
RUN useradd --uid 10001 --home-dir /tmp --no-create-home tidecast && install -d -o 10001 -g 10001 /lake /state && install -d -o 1883 -g 1883 /certificates

ENV PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /tmp
CMD ["tidecast", "serve"]

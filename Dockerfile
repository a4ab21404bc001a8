# syntax=docker/dockerfile:1
# The page and its workers: docker build -t dreampose . && docker run --gpus all -p 7860:7860 -v dreampose:/data dreampose
# (without --gpus all it runs on the CPU). Every DREAMPOSE_ variable of docs/server.md may be given with -e.
FROM python:3.12-slim-bookworm

# An index with other builds of torch (CPU alone, or an older CUDA), in pip's words; empty: the default one, which is for new NVIDIA drivers.
ARG PIP_EXTRA_INDEX_URL=""

# Not pinned: ffmpeg should have the latest mends.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ffmpeg tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 user \
    && mkdir /data && chown user:user /data

WORKDIR /app
# Packages first, torch before all others: what changes often comes last.
COPY requirements.txt ./
RUN pip install --no-cache-dir "$(grep -E '^torch==' requirements.txt)" \
    && pip install --no-cache-dir -r requirements.txt
COPY LICENSE README.md app.py ./
COPY examples examples
COPY assets assets
COPY dreampose_core dreampose_core

# All that is written lies below /data and /tmp: the rest may be mounted read-only (--read-only --tmpfs /tmp).
ENV DREAMPOSE_HOME=/data DREAMPOSE_HOST=0.0.0.0 HF_HOME=/data/huggingface \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 1000
VOLUME /data
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=2m \
    CMD ["python", "-c", "import urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:7860/healthz', timeout=4)"]
# Workers finish their step and write a checkpoint; `docker stop --time 30` leaves them the time.
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--"]
CMD ["python", "app.py"]

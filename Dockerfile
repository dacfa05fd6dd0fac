# The container of Kubernetes and TPU hosts. What follows the image's name goes to alexnet_jax.main.
#
# Needs    a builder of container images; for GPUs NVIDIA's container toolkit where it runs.
# Command  docker build --tag alexnet-jax .                                   CPU
#          docker build --build-arg EXTRA=cuda12 --tag alexnet-jax:cuda12 .   NVIDIA GPUs, CUDA 12 (or cuda13)
#          docker build --build-arg EXTRA=tpu --tag alexnet-jax:tpu .         TPUs
#          docker run --rm --volume "$PWD/data:/app/data" --volume "$PWD/runs:/app/runs" alexnet-jax --config=configs/two_device.py
#          With GPUs: --gpus=all. The two folders must be writable for user 1000, or add --user="$(id -u)".
# Stop     docker stop --time=120 CONTAINER: the run saves and leaves with code 76.
#
# The base is pinned by its tag: its digest could not be looked up where this was written. To pin the bytes as well, put
# @sha256:DIGEST behind it, from docker buildx imagetools inspect.
FROM python:3.11.14-slim-bookworm

ARG EXTRA=
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 XDG_CACHE_HOME=/tmp/cache

WORKDIR /app
# First what the package needs, around a package that is still empty: a change of the code does not install it again.
COPY pyproject.toml requirements.txt README.md LICENSE ./
RUN pip install --no-cache-dir --disable-pip-version-check --constraint requirements.txt ".${EXTRA:+[$EXTRA]}"

COPY . .
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps --editable . \
    && useradd --uid 1000 --create-home alexnet && install --directory --owner=alexnet data runs
USER 1000

ENTRYPOINT ["python", "-m", "alexnet_jax.main"]

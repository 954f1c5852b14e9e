# docker build --build-arg USER_ID=$(id -u) -t savae-dist .
# mkdir -p runs && docker run -v "$PWD/runs:/home/trainer/runs" savae-dist [PRESET or FILE.yaml] [key=value ...]
#
# USER_ID: who writes into the mounted folders.
# BASE: any image with Python >= 3.11. A torch that the base image brings (CUDA images) is kept, and not replaced by the
#       pinned one: docker build --build-arg BASE=pytorch/pytorch:TAG -t savae-dist .
# EXTRAS: optional dependencies, such as "deepspeed" or "deepspeed,remote".
# LAUNCH (at run time): options of accelerate launch, such as
#       docker run -e LAUNCH="--config_file launch_configs/accelerate/cpu_2.yaml" savae-dist networks.norm=group
# LAUNCHER (at run time): another launcher than accelerate launch, such as torchrun (see launch_configs/kubernetes).
ARG BASE=python:3.11-slim
FROM ${BASE}
ARG EXTRAS=""

ENV PIP_NO_CACHE_DIR=1 PIP_BREAK_SYSTEM_PACKAGES=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

WORKDIR /opt/savae-dist
COPY constraints.txt ./
RUN python -c "import torch" 2>/dev/null \
        || python -m pip install -c constraints.txt "$(grep '^torch==' constraints.txt)"; \
    python -c "from importlib.metadata import version; print('torch==' + version('torch'))" > torch.txt \
    && grep -v '^torch==' constraints.txt >> torch.txt && mv torch.txt constraints.txt

COPY . .
RUN python -m pip install -c constraints.txt ".${EXTRAS:+[${EXTRAS}]}"

# Hands SIGTERM on to the trainer, which saves, and ends with its exit code.
RUN ln -s /opt/savae-dist/launch_configs/container.sh /usr/local/bin/savae-launch

# A number, so that Kubernetes can prove that it is not root.
ARG USER_ID=10001
RUN useradd --create-home --uid ${USER_ID} trainer
USER ${USER_ID}
WORKDIR /home/trainer
RUN ln -s /opt/savae-dist/launch_configs launch_configs && mkdir runs
ENTRYPOINT ["savae-launch"]

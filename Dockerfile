# docker build --build-arg USER_ID=$(id -u) -t savae-dist .
# mkdir -p runs && docker run -v "$PWD/runs:/home/trainer/runs" savae-dist [PRESET or FILE.yaml] [key=value ...]
#
# USER_ID: who writes into the mounted folders; 0, where Docker is used as root, keeps the image root's.
# BASE: any image with Python >= 3.11. A torch that the base image brings (CUDA images) is kept, and not replaced by the
#       pinned one: docker build --build-arg BASE=pytorch/pytorch:TAG -t savae-dist .
# TORCH_INDEX: a further package index that torch may come from, such as PyTorch's own of builds for CPUs, which are
#       smaller by gigabytes: docker build --build-arg TORCH_INDEX=URL -t savae-dist .
# EXTRAS: optional dependencies, such as "deepspeed" or "deepspeed,remote".
# LAUNCH (at run time): options of accelerate launch, such as
#       docker run -e LAUNCH="--config_file launch_configs/accelerate/cpu_2.yaml" savae-dist networks.norm=group
# LAUNCHER (at run time): another launcher than accelerate launch, such as torchrun (see launch_configs/kubernetes).
ARG BASE=python:3.11-slim
FROM ${BASE}
ARG EXTRAS=""
ARG TORCH_INDEX=""

ENV PIP_NO_CACHE_DIR=1 PIP_BREAK_SYSTEM_PACKAGES=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

# Layers of what changes seldom come first: a change of the source rebuilds only the last ones.
WORKDIR /opt/savae-dist
COPY constraints.txt ./
RUN python -c "import torch" 2>/dev/null \
        || python -m pip install -c constraints.txt ${TORCH_INDEX:+--extra-index-url ${TORCH_INDEX}} \
            "$(grep '^torch==' constraints.txt)"; \
    python -c "from importlib.metadata import version; print('torch==' + version('torch'))" > torch.txt \
    && grep -v '^torch==' constraints.txt >> torch.txt && mv torch.txt constraints.txt

COPY pyproject.toml ./
RUN EXTRAS="${EXTRAS}" python -c "import os, tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
        print(*p['dependencies'], *(r for e in os.environ['EXTRAS'].split(',') if e for r in p['optional-dependencies'][e]), sep='\n')" \
        > requirements.txt \
    && python -m pip install -c constraints.txt -r requirements.txt

# A number, so that Kubernetes can prove that it is not root.
ARG USER_ID=10001
RUN if [ "${USER_ID}" = 0 ]; then mkdir -p /home/trainer; else useradd --create-home --uid ${USER_ID} trainer; fi

# savae-launch hands SIGTERM on to the trainer, which saves, and ends with its exit code.
COPY . .
RUN python -m pip install --no-deps . \
    && ln -s /opt/savae-dist/launch_configs/container.sh /usr/local/bin/savae-launch

USER ${USER_ID}
WORKDIR /home/trainer
RUN ln -s /opt/savae-dist/launch_configs launch_configs && mkdir runs
ENTRYPOINT ["savae-launch"]

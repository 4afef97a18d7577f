# limner for the CPU, or for CUDA: docker build --build-arg TORCH=cuda -t limner:cuda .
# Every RUN of the CPU image was executed in a clean root of Debian 12 by chroot, with torch's wheel from a folder instead of
# TORCH_INDEX. A container engine has built neither image, and the steps for CUDA were not run.
FROM debian:bookworm-slim

# "cpu" takes torch's own wheels without CUDA; "cuda" those of the package index, which bring NVIDIA's libraries.
ARG TORCH=cpu
# A mirror of the Python package index, and of torch's wheels for the CPU.
ARG INDEX=https://pypi.org/simple
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

COPY pyproject.toml constraints.txt MANIFEST.in README.md LICENSE /src/
COPY limner /src/limner
COPY readers /src/readers
COPY model /src/model
COPY reports /src/reports
COPY pipelines /src/pipelines

RUN python3 -m venv /opt/limner \
    && if [ "$TORCH" = cpu ]; then \
        /opt/limner/bin/pip install --no-cache-dir --constraint /src/constraints.txt --index-url "$TORCH_INDEX" \
            --extra-index-url "$INDEX" "$(grep '^torch==' /src/constraints.txt)+cpu"; \
    fi \
    && /opt/limner/bin/pip install --no-cache-dir --constraint /src/constraints.txt --index-url "$INDEX" /src \
    && rm -rf /src

RUN useradd --uid 1000 limner && install --directory --owner limner /data /weights
USER limner
WORKDIR /data
ENV PATH=/opt/limner/bin:$PATH LIMNER_CACHE=/weights

# Where this fails, the image is broken.
RUN limner doctor

ENTRYPOINT ["limner"]
CMD ["--help"]

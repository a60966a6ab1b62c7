# GPU image: PyTorch, Transformer Engine and apex are NVIDIA's, and stay as they are.
# Linted; it has not been built, no machine with the base image was at hand.
#   docker build --tag megatron-msm .
#   docker run --gpus all --ipc host --rm --volume "$PWD:/work" megatron-msm doctor
FROM nvcr.io/nvidia/pytorch:25.10-py3

COPY pyproject.toml README.md LICENSE /opt/megatron-msm/
COPY megatron_msm /opt/megatron-msm/megatron_msm
COPY data_prep /opt/megatron-msm/data_prep
COPY slurm /opt/megatron-msm/slurm
COPY evals /opt/megatron-msm/evals
COPY examples /opt/megatron-msm/examples
# The image's own constraints (since 25.03) keep pip from replacing what NVIDIA built; where they and our
# requirements cannot both be met, the build fails.
RUN PIP_CONSTRAINT=/etc/pip/constraint.txt pip install --no-cache-dir '/opt/megatron-msm[evals,generate,slurm]' \
    && msm --version

WORKDIR /work
ENTRYPOINT ["msm"]

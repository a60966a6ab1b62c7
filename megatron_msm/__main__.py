"""`python -m megatron_msm`: the `msm` command, where its script is not on the PATH."""

from megatron_msm.cli import main

if __name__ == "__main__":
    main()

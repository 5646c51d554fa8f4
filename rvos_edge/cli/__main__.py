"""``python -m rvos_edge.cli``, for torchrun."""

from rvos_edge.cli import main

if __name__ == "__main__":
    main()

"""Training in PyTorch: model, data, training loop, evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rvos_edge.trainer.config import Config

__all__ = ["train"]


def train(
    config: Config | Mapping[str, Any] | str | Path,
    output: str | Path | None = None,
    *,
    changes: Sequence[str] = (),
    resume: bool = False,
) -> Path:
    """Train what a configuration describes, as ``rvos-edge train`` does.

    Under torchrun every process calls this.

    Args:
        config: A YAML file, the name of a configuration that comes with the package, the same as a mapping, or what
            ``trainer.config.load_config`` returned.
        output: Folder of the run; ``runs/NAME`` by default.
        changes: Overrides ``key.sub=value`` of a file or name, as of ``--set``.
        resume: Continue the run in ``output``, exactly where it stopped.

    Returns:
        The checkpoint's directory, or with ``task: mlm`` that of the text model.

    Raises:
        UserError: The configuration, a file or a data set is wrong or missing, or ``output`` holds a run already.
        KeyboardInterrupt: Ctrl-C, after saving.

    Example:
        >>> from rvos_edge.trainer import train
        >>> checkpoint = train("edge-ablation", "runs/short", changes=["iterations=100"])  # doctest: +SKIP
    """
    from rvos_edge.errors import UserError
    from rvos_edge.trainer.config import MlmConfig, PresenceConfig, StagesConfig, load_config, parse

    if isinstance(config, (str, Path)):
        settings = load_config(Path(config), changes)
    else:
        settings = parse(config, "the configuration") if isinstance(config, Mapping) else config
        if changes:
            raise UserError("changes are for configurations in files; change the mapping itself.")
    folder = Path("runs") / settings.name if output is None else Path(output)
    if isinstance(settings, StagesConfig):
        from rvos_edge.trainer.tasks.stages import train_stages

        return train_stages(settings, folder)
    if isinstance(settings, MlmConfig | PresenceConfig):
        if resume:
            raise UserError(f"task: {settings.task} is not resumed, it is short; remove {folder} and start again.")
        if isinstance(settings, MlmConfig):
            from rvos_edge.trainer.tasks.mlm import train_text

            return train_text(settings, folder)
        from rvos_edge.trainer.tasks.presence import train_presence

        return train_presence(settings, folder)
    from rvos_edge.trainer.loop import train as train_network

    return train_network(settings, folder, resume=resume)

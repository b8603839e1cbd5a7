"""The networks of one picture at work: which are attached at which denoiser call."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

from webui.catalog import ModelFile
from webui.engine.conditioning.text import Conditioning, in_turn
from webui.engine.networks.hypernetworks import Hypernetwork
from webui.engine.networks.layer_names import UNET
from webui.engine.networks.lora import CheckpointAdapters, Strength
from webui.engine.networks.lora_file import LoraFile
from webui.events import Warning
from webui.prompt import ExtraNetwork


@dataclass(frozen=True, slots=True)
class UsedLora:
    """A tag, the file it means, and that file opened."""

    tag: ExtraNetwork
    model: ModelFile
    file: LoraFile

    def strength(self, network: str) -> Strength:
        weight = self.tag.unet_weight if network == UNET else self.tag.te_weight
        return Strength(self.file, weight, self.tag.dyn_rank)


@dataclass(frozen=True, slots=True)
class UsedHypernetwork:
    """A tag, the file it means, and the network in it."""

    tag: ExtraNetwork
    model: ModelFile
    network: Hypernetwork

    @property
    def key(self) -> Hashable:
        return str(self.model.path), self.model.fingerprint, self.tag.te_weight


@dataclass(frozen=True)
class ActiveNetworks:
    """What a prompt's tags ask for, on one checkpoint. `calls` is the number of denoiser calls of the pass.

    The sets stay attached after the picture, so that the next one with the same tags finds them: whoever runs a network
    of the checkpoint says first what is to be on it, by `prepare` or `conditioned`.
    """

    adapters: CheckpointAdapters
    loras: tuple[UsedLora, ...] = ()
    hypernetworks: tuple[UsedHypernetwork, ...] = ()
    calls: int = 1
    warnings: tuple[Warning, ...] = ()

    def prepare(self, call: int) -> None:
        """Have the UNet as it is to be at this denoiser call, counted from 0."""
        call = min(call, self.calls - 1)  # samplers that choose their steps themselves may take more
        self.adapters.use(UNET, [lora.strength(UNET) for lora in self.loras if lora.tag.acts_at(call, self.calls)])
        acting = [h for h in self.hypernetworks if h.tag.acts_at(call, self.calls)]
        self.adapters.use_hypernetworks(tuple(h.key for h in acting), [(h.network, h.tag.te_weight) for h in acting])

    def conditioned(self, encode: Callable[[Hashable], Conditioning]) -> Conditioning:
        """The prompts as the text encoders read them with these networks; step ranges count for them, too.

        `encode` is called for each set of networks that acts on the text encoders at some time, with a key of the set.
        """
        runs: list[tuple[int, Conditioning]] = []
        for last, acting in self._text_runs():
            for name in self.adapters.text_encoders:
                self.adapters.use(name, [lora.strength(name) for lora in acting])
            runs.append((last, encode(self.adapters.text_key())))
        return in_turn(runs)

    def report(self) -> Iterator[tuple[UsedLora, str, bool]]:
        """What became of the layers of each LoRA, in words, and whether all of them act; once the first sets are on.

        Those that begin later count as if they were on, too.
        """
        for lora in self.loras:
            if lora.tag.unet_weight and any(lora.tag.acts_at(call, self.calls) for call in range(self.calls)):
                self.adapters.try_out(UNET, lora.strength(UNET))
        for lora in {lora.model.path: lora for lora in self.loras}.values():
            counts = self.adapters.counts(lora.file)
            total = counts.applied + counts.skipped
            if counts.skipped:
                reasons = "; ".join(counts.reasons)
                more = "" if counts.skipped <= len(counts.reasons) else "; ..."
                text = f"{counts.applied} of {total} layers applied, {counts.skipped} skipped ({reasons}{more})"
            else:
                text = f"{counts.applied} layers applied"
            yield lora, text, not counts.skipped

    def _text_runs(self) -> list[tuple[int, Sequence[UsedLora]]]:
        """(last call, what acts on the text encoders until then), one entry for each change."""
        runs: list[tuple[int, Sequence[UsedLora]]] = []
        for call in range(self.calls):
            acting = [lora for lora in self.loras if lora.tag.te_weight and lora.tag.acts_at(call, self.calls)]
            if runs and runs[-1][1] == acting:
                runs[-1] = (call, acting)
            else:
                runs.append((call, acting))
        return runs

"""The score as a pointwise reward of Flow-Factory, named by its path in the configuration.

    rewards:
      - name: quality
        reward_model: maclip_pyiqa.integrations.flow_factory.MACLIPRewardModel
        batch_size: 16
        chunk: 32

The interface is that of `src/flow_factory/rewards/abc.py` in https://github.com/X-GenGroup/Flow-Factory, commit
5f6cda1a3e6be3c971643beb8d1e92e7be4a9638.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..metric import MACLIP
from .rewards import MACLIPReward

try:
    from flow_factory.rewards import PointwiseRewardModel, RewardModelOutput
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'Flow-Factory is not installed; see https://github.com/X-GenGroup/Flow-Factory', name=error.name
    ) from error

__all__ = ['MACLIPRewardModel']


class MACLIPRewardModel(PointwiseRewardModel):
    """MA-CLIP's score of each image. Images that cannot be scored get the lowest score, see `MACLIPReward`.

    The metric computes in float32, whatever the configuration's `dtype`: scores of bfloat16 differ by more than the
    images of one prompt often do.

    Args:
        config: keys that Flow-Factory does not know itself are options of `MACLIP`, such as backbone or chunk
        accelerator: Flow-Factory's
    """

    required_fields = ('image', 'prompt')
    use_tensor_inputs = True

    def __init__(self, config: Any, accelerator: Any) -> None:
        super().__init__(config, accelerator)
        self.reward = MACLIPReward(MACLIP(**config.extra_kwargs), batch=config.batch_size, device=self.device)
        self.model = self.reward.metric

    def __call__(
        self, prompt: list[str], image: Sequence[torch.Tensor] | torch.Tensor | None = None
    ) -> RewardModelOutput:
        """Rewards of images, (N,), on the CPU.

        Args:
            prompt: N
            image: N tensors (3, H, W) in [0, 1]

        Raises:
            ValueError: no images (videos are not scored), or not as many as prompts
        """
        if image is None:
            raise ValueError('the samples have no image; videos are not scored')
        rewards, info = self.reward(image, prompt)
        return RewardModelOutput(rewards=torch.from_numpy(rewards), extra_info=info)

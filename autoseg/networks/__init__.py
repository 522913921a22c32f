"""Networks, built from the plan."""

from .build import NETWORKS, build_network, initialise
from .nnunet_weights import weight_map_from_nnunet

__all__ = ["NETWORKS", "build_network", "initialise", "weight_map_from_nnunet"]

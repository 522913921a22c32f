"""Networks, built from the plan."""

from .build import NETWORKS, build_network, initialise, network_without_weights
from .nnunet_weights import weight_map_from_nnunet

__all__ = ["NETWORKS", "build_network", "initialise", "network_without_weights", "weight_map_from_nnunet"]

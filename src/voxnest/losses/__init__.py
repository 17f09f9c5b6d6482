"""Losses that teach an encoder to tell speakers apart.

The classification losses take an embedding no longer than `embedding_dim` and compare it with that prefix of each
class weight, so that `voxnest.matryoshka.MatryoshkaLoss` can share one set of class weights among all prefixes.
"""

from voxnest.losses.aam import AAMSoftmax, SubCenterAAMSoftmax
from voxnest.losses.classes import ClassWeights, OwnClasses
from voxnest.losses.linear import LinearSoftmax
from voxnest.losses.sphereface2 import SphereFace2
from voxnest.losses.triplet import TripletLoss

__all__ = [
    "AAMSoftmax",
    "ClassWeights",
    "LinearSoftmax",
    "OwnClasses",
    "SphereFace2",
    "SubCenterAAMSoftmax",
    "TripletLoss",
]

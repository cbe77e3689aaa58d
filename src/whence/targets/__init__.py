"""The numbers to explain, named the same way in every job: tokens, likely tokens, and directions of one's own."""

from whence.targets.attribution import AttributionTargets
from whence.targets.concepts import concept_direction
from whence.targets.custom import CustomTarget

__all__ = ["AttributionTargets", "CustomTarget", "concept_direction"]

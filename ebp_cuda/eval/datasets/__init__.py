"""Annotated image sets as they lie on disk: PASCAL VOC, COCO, ImageNet boxes, Flickr30k Entities.

Every reader gives a list of `Picture`s and refuses, by `InputError`, a set that is missing or half downloaded: the
message says which file was expected where.
"""

from .base import Instance, Picture

__all__ = ["Instance", "Picture"]

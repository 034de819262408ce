"""The best possible segmentation of the textures when their widths are known: `python -m replication.ceiling`.

The best IoU of any method is estimated near two figures. The lower one comes from decisions by Bayes' rule from the image;
the upper one from decisions about a pixel that also know the mask at all other pixels. docs/ceiling.md says what is
approximate.
"""

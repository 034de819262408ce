"""How well the textures can be told apart at all, when their widths are known: `python -m replication.ceiling`.

The best IoU of any method lies between two figures. Below it: decisions made by Bayes' rule from the image. Above it: the
decision about a pixel by one who is told the mask at all other pixels. What is exact and what is not: docs/ceiling.md.
"""

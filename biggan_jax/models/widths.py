"""Widths of BigGAN's blocks and BigGAN-deep's stages by resolution, which SAGAN and SNGAN share.

References:
  Brock et al. 2019, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", appendix
  B, tables 4 to 6. 32 and 64 pixels as in BigGAN-PyTorch; D at 512 as in StudioGAN. 16 pixels is
  the 32-pixel table with one stage fewer.
"""

# Multiples of ch: entry 0 is the width of the 4x4 input, entry i that of block i's output; every
# block doubles the resolution.
G_WIDTHS = {
    16: (4, 4, 4),
    32: (4, 4, 4, 4),
    64: (16, 16, 8, 4, 2),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
    512: (16, 16, 8, 8, 4, 2, 1, 1),
}
# Multiples of ch of each block's output, and how many blocks (the first ones) halve the resolution.
D_WIDTHS = {
    16: ((4, 4, 4), 2),
    32: ((4, 4, 4, 4), 2),
    64: ((1, 2, 4, 8, 16), 4),
    128: ((1, 2, 4, 8, 16, 16), 5),
    256: ((1, 2, 4, 8, 8, 16, 16), 6),
    512: ((1, 1, 2, 4, 8, 8, 16, 16), 7),
}
# PyTorch-StudioGAN's `big_resnet` differs at two places; the rest of its widths are the same.
WIDTH_TABLES = {
    "biggan_pytorch": (G_WIDTHS, D_WIDTHS),
    "studiogan": (G_WIDTHS | {64: (16, 8, 4, 2, 1)}, D_WIDTHS | {32: ((2, 2, 2, 2), 2)}),
}
# BigGAN-deep. G's stages have the widths of BigGAN's blocks. D: entry 0 is the width of the stem,
# entry i that of stage i's output; then how many stages (the first ones) halve the resolution.
_DEEP_D = {
    16: ((4, 4, 4), 1),
    32: ((4, 4, 4, 4), 2),
    64: ((1, 2, 4, 8, 16), 4),
    128: ((1, 2, 4, 8, 16, 16), 5),
    256: ((1, 2, 4, 8, 8, 16, 16), 6),
    512: ((1, 1, 2, 4, 8, 8, 16, 16), 7),
}
# StudioGAN's `big_resnet_deep_legacy`, and `big_resnet_deep_studiogan`, whose D has a narrower stem
# at 32 pixels.
DEEP_WIDTH_TABLES = {
    "biggan_pytorch": (G_WIDTHS, _DEEP_D),
    "studiogan_legacy": (WIDTH_TABLES["studiogan"][0], _DEEP_D),
    "studiogan": (WIDTH_TABLES["studiogan"][0], _DEEP_D | {32: ((1, 4, 4, 4), 2)}),
}

"""Widths of BigGAN's blocks by resolution, which SAGAN, SNGAN and BigGAN-deep share in part.

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

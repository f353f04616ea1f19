"""The kinds of `biggan look`: each a directory in, a picture and what it shows out."""

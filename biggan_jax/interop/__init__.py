"""Published weights in and out: BigGAN-PyTorch, pytorch-pretrained-BigGAN, safetensors."""

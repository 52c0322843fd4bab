"""The method on live `nn.Module`s: torch, numpy and scipy only, no Hub, no layer names."""

"""The method on live `nn.Module`s: torch and numpy only, no Hub, no layer names."""

"""Hold the published networks to compare with, one module each; `vsn.config.MODELS` lists them."""

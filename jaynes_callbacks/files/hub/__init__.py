"""Models on the Hugging Face hub: one revision read as a checkpoint, without keeping it.

`place` reads addresses, `client` asks the hub, `choosing` finds which files of a repository are the
model, `ranges` reads tensors of safetensors files one by one, `opening` puts it together.
"""

from jaynes_callbacks.files.hub.place import HubPlace, is_hub_address

__all__ = ["HubPlace", "is_hub_address"]

"""The parts of scripts/train_tiny.py: data, teacher, network, optimizer, training, front, contacts, export, recipe."""

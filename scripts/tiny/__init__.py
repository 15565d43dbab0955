"""The parts of scripts/train_tiny.py: data, network, optimizer, training, contacts, export."""

"""The rules across keys, by what they are about; `config.check` asks them all."""

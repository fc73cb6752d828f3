"""SDFS on this machine: systemd units, made of the templates in `systemd/`, which the wheel has by the link `templates`.

Commands run it. It imports `system`, `owner.store` and `mount.options`.
"""

"""The `marquee` command."""

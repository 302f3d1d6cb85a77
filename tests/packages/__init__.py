"""The built packages in roots of Debian 12 and 13: installed, set up, upgraded, removed, purged."""

"""Build hook: a wheel carries the tools and launch_configs inside the package; a checkout uses its own folders."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

INSIDE = {"launch_configs": "savae_dist/launch_configs", "tools": "savae_dist/tools"}


class ToolsAndConfigurations(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            build_data["force_include"].update(INSIDE)
            return
        # An editable install copies nothing, so no stale tool can run: its commands start `tools/` of the checkout.
        scripts = self.metadata.core.scripts
        scripts.update({name: target.replace("savae_dist.tools.", "tools.") for name, target in scripts.items()})

"""Links to files of the repository: ``[focus.py](source:fgbook/methods/focus.py)``. The
address and the branch are those of _config.yml.
"""

from sphinx.application import Sphinx
from sphinx.config import Config


def add_scheme(app: Sphinx, config: Config) -> None:
    """Make "source" a scheme that MyST knows, beside those that are configured."""
    options = config.html_theme_options
    top = f"{options['repository_url']}/blob/{options['repository_branch']}"
    known = dict.fromkeys(config.myst_url_schemes)
    config.myst_url_schemes = {**known, "source": f"{top}/{{{{path}}}}"}


def setup(app: Sphinx) -> dict[str, bool]:
    """Before MyST reads its configuration, when the builder is made."""
    app.connect("config-inited", add_scheme)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""What differs between Hydra 1.3 and 1.4."""

import hydra

# On 1.4 any version_base warns; on 1.3 leaving it out warns and changes the working directory.
VERSION: dict[str, str] = {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}

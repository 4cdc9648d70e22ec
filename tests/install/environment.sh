#!/bin/bash
# docs/environment.md lists GREY_DEBUG's names as the one table in os/options.h has them: name, default, range, text.
set -euo pipefail
cd "$(dirname "$0")/../.."
table=$(sed -n 's/^ *X(\([a-z]*\), \([0-9]*\), \([0-9]*\), \([0-9]*\), "\([^"]*\)").*/| `\1` | \2 | \3 to \4 | \5 |/p' os/options.h)
[ "$(wc -l <<< "$table")" -ge 10 ] || { echo "the table in os/options.h was not understood"; exit 1; }
page=$(grep -E '^\| `[a-z]+` \| [0-9]+ \|' docs/environment.md)
diff <(echo "$table") <(echo "$page") && echo "docs/environment.md agrees with os/options.h"

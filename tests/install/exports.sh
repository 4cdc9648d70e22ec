#!/bin/sh
# The shared library exports names that begin with grey_ and no others (TU-12), and all that grey.h
# declares as a plain function.
set -eu
library=$1
header=$(cd "$(dirname "$0")/../.." && pwd)/include/grey.h

exported=$(nm -D --defined-only "$library" | awk '{ print $NF }' | sed 's/@.*//' | sort -u)
[ -n "$exported" ] || { echo "exports: nothing is exported"; exit 1; }

foreign=$(echo "$exported" | grep -v '^grey_' || true)
if [ -n "$foreign" ]; then
    echo "exports: names that are not Grey's:"
    echo "$foreign"
    exit 1
fi

missing=0
for name in $(sed -n 's/^GREY_API [^(]*[ *]\(grey_[a-z0-9_]*\)(.*/\1/p' "$header" | sort -u); do
    if ! echo "$exported" | grep -qx "$name"; then
        echo "exports: $name is declared in grey.h and not exported"
        missing=1
    fi
done
[ $missing = 0 ] || exit 1
echo "exports: $(echo "$exported" | wc -l) names, all grey_"

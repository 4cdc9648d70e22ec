#!/bin/sh
# Installs the library into an empty directory and builds the README's example there the two ways a user
# would, by pkg-config and by find_package, against both libraries; and as C++.  What the README says is
# thereby true.
set -eu
build=$1
compiler=$2
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cmake --install "$build" --prefix "$work/installed" > "$work/log" || { cat "$work/log"; exit 1; }

# The first block of C in the README.
sed -n '/^```c$/,/^```$/p' "$root/README.md" | sed '1d;/^```$/,$d' > "$work/example.c"
[ -s "$work/example.c" ] || { echo "install: no example in README.md"; exit 1; }

pc=$(find "$work/installed" -name grey.pc)
PKG_CONFIG_PATH=$(dirname "$pc")
export PKG_CONFIG_PATH
# grey.pc names the prefix of the build; a copy elsewhere says so.
query="pkg-config --define-variable=prefix=$work/installed"
libraries=$($query --variable=libdir grey)
strict="-std=gnu11 -O2 -Wall -Wextra -Werror"

check() {
    "$1" > "$work/out" || { echo "install: $2 failed"; exit 1; }
    [ -s "$work/out" ] || { echo "install: $2 printed nothing"; exit 1; }
    echo "install: $2: $(head -1 "$work/out")"
}

# Word splitting of what pkg-config prints is meant.
$compiler $strict "$work/example.c" $($query --cflags --libs grey) "-Wl,-rpath,$libraries" \
    -o "$work/shared"
check "$work/shared" "pkg-config, shared"
$compiler $strict "$work/example.c" $($query --cflags grey) "$libraries/libgrey.a" \
    $($query --static --libs-only-l --libs-only-other grey | sed 's/-lgrey//') -o "$work/static"
check "$work/static" "pkg-config, static"

mkdir "$work/project"
cat > "$work/project/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.25)
project(user C)
find_package(grey $(pkg-config --modversion grey) REQUIRED)
add_executable(user_static ../example.c)
target_link_libraries(user_static PRIVATE grey::grey)
add_executable(user_shared ../example.c)
target_link_libraries(user_shared PRIVATE grey::grey_shared)
END
{ cmake -G Ninja -S "$work/project" -B "$work/project/build" -DCMAKE_C_COMPILER="$compiler" \
    -DCMAKE_PREFIX_PATH="$work/installed" && cmake --build "$work/project/build"; } > "$work/log" 2>&1 ||
    { cat "$work/log"; exit 1; }
check "$work/project/build/user_static" "find_package, static"
check "$work/project/build/user_shared" "find_package, shared"

# The header alone, as C++17.
echo '#include <grey.h>' > "$work/header.cpp"
c++ -std=c++17 -Wall -Wextra -Werror -fsyntax-only $($query --cflags grey) "$work/header.cpp"
echo "install: the header compiles as C++17"

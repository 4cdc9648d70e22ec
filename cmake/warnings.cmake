# Warnings that all of Grey's own code is compiled with; a warning is an error.  -Wtsan is off: gcc
# says with it that ThreadSanitizer doesn't understand fences, which the tests know (TR-16).

add_library(grey_warnings INTERFACE)
target_compile_options(grey_warnings INTERFACE
    $<$<COMPILE_LANGUAGE:C,CXX>:-Wall -Wextra -Werror -Wshadow -Wundef -Wpointer-arith>
    $<$<COMPILE_LANGUAGE:C>:-Wstrict-prototypes -Wmissing-prototypes>
    $<$<COMPILE_LANG_AND_ID:C,GNU>:-Wno-tsan>
    $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-tsan>)

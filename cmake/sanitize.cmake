# Sanitizers are a property of the whole build, tests and examples included: a program half
# instrumented reports things that aren't so.  This also says how tests run under each, in
# grey_test_environment and grey_test_debug.

set(grey_test_environment "")
set(grey_test_debug "") # what GREY_DEBUG starts with

if(GREY_SANITIZE)
    add_compile_options(-fsanitize=${GREY_SANITIZE} -fno-omit-frame-pointer)
    add_link_options(-fsanitize=${GREY_SANITIZE})
endif()
if(GREY_SANITIZE STREQUAL "address")
    # Leak detection would look for pointers in the wrong places, and fake stacks would hide locals
    # from the scan.
    set(grey_test_environment "ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0")
elseif(GREY_SANITIZE STREQUAL "thread")
    # It knows nothing of membarrier, so phases are changed by handshakes (TR-16).
    set(grey_test_environment "TSAN_OPTIONS=halt_on_error=1")
    set(grey_test_debug "membarrier=0")
elseif(GREY_SANITIZE STREQUAL "undefined")
    add_compile_options(-fno-sanitize-recover=undefined)
    set(grey_test_environment "UBSAN_OPTIONS=print_stacktrace=1")
elseif(GREY_SANITIZE)
    message(FATAL_ERROR "GREY_SANITIZE is address, thread or undefined, not ${GREY_SANITIZE}")
endif()

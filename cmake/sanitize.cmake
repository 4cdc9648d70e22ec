# Sanitizers are a property of the whole build, tests and examples included: a program half
# instrumented reports things that aren't so.  This also says how tests run under each, in
# grey_test_environment and grey_test_debug.

set(grey_test_environment "")
set(grey_test_debug "") # what GREY_DEBUG starts with

if(GREY_SANITIZE STREQUAL "address")
    # With UndefinedBehaviorSanitizer: the two go together in one build, and a third would run the same tests.
    set(sanitizers -fsanitize=address,undefined -fno-sanitize-recover=undefined)
    # Leak detection would look for pointers in the wrong places, and fake stacks would hide locals
    # from the scan.
    set(grey_test_environment "ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0"
        "UBSAN_OPTIONS=print_stacktrace=1")
elseif(GREY_SANITIZE STREQUAL "thread")
    set(sanitizers -fsanitize=thread)
    # It knows nothing of membarrier, so phases are changed by handshakes (TR-16).
    set(grey_test_environment "TSAN_OPTIONS=halt_on_error=1")
    set(grey_test_debug "membarrier=0")
elseif(GREY_SANITIZE)
    message(FATAL_ERROR "GREY_SANITIZE is address or thread, not ${GREY_SANITIZE}")
endif()
if(GREY_SANITIZE)
    add_compile_options(${sanitizers} -fno-omit-frame-pointer)
    add_link_options(${sanitizers})
endif()

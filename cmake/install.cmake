# What is installed: the header, both libraries, and the two ways to find them, pkg-config's grey.pc
# and CMake's find_package(grey) with the targets grey::grey (static) and grey::grey_shared.

include(CMakePackageConfigHelpers)

set(grey_pc_private "-pthread -ldl")
if(grey_ck_archive)
    string(APPEND grey_pc_private " -lck")
endif()
configure_file(cmake/grey.pc.in grey.pc @ONLY)
configure_package_config_file(cmake/grey-config.cmake.in grey-config.cmake
    INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/grey)
write_basic_package_version_file(grey-config-version.cmake COMPATIBILITY SameMinorVersion)

install(TARGETS grey grey_shared EXPORT grey-targets)
install(EXPORT grey-targets NAMESPACE grey:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/grey)
install(DIRECTORY include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "grey.h*")
install(FILES ${PROJECT_BINARY_DIR}/grey.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES ${PROJECT_BINARY_DIR}/grey-config.cmake ${PROJECT_BINARY_DIR}/grey-config-version.cmake
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/grey)
install(FILES LICENSE README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})

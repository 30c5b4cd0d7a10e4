# fathom_precompile(TARGET KIND): compiles TARGET with the precompiled header of a kind of code: engine, fast, light or
# tests. The header is compiled with FATHOM_CODE_KIND (CMakeLists.txt) and shared by all targets of the kind, which have
# the same options. Parsing the standard headers, and for tests those of GoogleTest, takes up to half of the compile time
# of a source file. Sources must still include what they use: builds with FATHOM_PCH=OFF (the preset tsan) fail otherwise.
option(FATHOM_PCH "Precompile standard headers" ON)
if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set(FATHOM_PCH OFF)
endif()

# Checksum of the content of precompiled headers apart from the headers of the compiler.
find_path(gtest_folder gtest/gtest.h NO_CACHE)
file(GLOB_RECURSE gtest_headers ${gtest_folder}/gtest/*.h)
set(FATHOM_PCH_CHECKSUM ${CMAKE_CXX_COMPILER_VERSION})
foreach(path IN LISTS gtest_headers CMAKE_CURRENT_LIST_FILE)
  file(SHA1 ${path} sum)
  string(SHA1 FATHOM_PCH_CHECKSUM ${FATHOM_PCH_CHECKSUM}${sum})
endforeach()

function(fathom_precompile target kind)
  if(NOT FATHOM_PCH)
    return()
  endif()
  set(header fathom_pch_${kind})
  if(NOT TARGET ${header})
    # ccache reads this file instead of the bytes of the compiled header, which differ from run to run. Its keys already
    # contain the compiler and its options.
    file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/CMakeFiles/${header}.dir/cmake_pch.hxx.gch.sum "${FATHOM_PCH_CHECKSUM}")
    add_library(${header} OBJECT ${PROJECT_SOURCE_DIR}/cmake/precompile.cpp)
    target_link_libraries(${header} PRIVATE Threads::Threads)
    target_precompile_headers(${header} PRIVATE <algorithm> <array> <cmath> <cstdint> <functional> <map> <memory>
      <optional> <span> <string> <string_view> <utility> <vector>)
    target_compile_options(${header} PRIVATE ${FATHOM_CODE_${kind}})
    if(kind STREQUAL "tests")
      target_link_libraries(${header} PRIVATE GTest::gtest)
      target_precompile_headers(${header} PRIVATE <filesystem> <fstream> <random> <sstream> <gtest/gtest.h>)
    endif()
  endif()
  target_precompile_headers(${target} REUSE_FROM ${header})
endfunction()

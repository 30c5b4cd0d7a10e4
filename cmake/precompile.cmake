# fathom_precompile(TARGET GROUP): compiles TARGET with the precompiled header of GROUP. Reading the standard headers, and
# GoogleTest's, takes up to half of the time of a source file. One header serves all targets whose options are the same:
#   engine, fast (FATHOM_FAST_CODE), light (FATHOM_LIGHT_CODE), tests (FATHOM_TEST_CODE and GoogleTest)
# Sources must include what they use all the same: FATHOM_PCH=OFF (the preset tsan) shows what does not.
option(FATHOM_PCH "Precompile standard headers" ON)
if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set(FATHOM_PCH OFF)
endif()

# What precompiled headers hold beside the compiler's own headers.
find_path(gtest_folder gtest/gtest.h NO_CACHE)
file(GLOB_RECURSE gtest_headers ${gtest_folder}/gtest/*.h)
set(FATHOM_PCH_CHECKSUM ${CMAKE_CXX_COMPILER_VERSION})
foreach(path IN LISTS gtest_headers CMAKE_CURRENT_LIST_FILE)
  file(SHA1 ${path} sum)
  string(SHA1 FATHOM_PCH_CHECKSUM ${FATHOM_PCH_CHECKSUM}${sum})
endforeach()

function(fathom_precompile target group)
  if(NOT FATHOM_PCH)
    return()
  endif()
  set(header fathom_pch_${group})
  if(NOT TARGET ${header})
    # For ccache, in place of the header's bytes, which differ from run to run. The compiler and its options are part of
    # ccache's keys anyway.
    file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/CMakeFiles/${header}.dir/cmake_pch.hxx.gch.sum "${FATHOM_PCH_CHECKSUM}")
    add_library(${header} OBJECT ${PROJECT_SOURCE_DIR}/cmake/precompile.cpp)
    target_link_libraries(${header} PRIVATE Threads::Threads)
    target_precompile_headers(${header} PRIVATE <algorithm> <array> <cmath> <cstdint> <functional> <map> <memory>
      <optional> <span> <string> <string_view> <utility> <vector>)
    if(group STREQUAL "fast")
      target_compile_options(${header} PRIVATE ${FATHOM_FAST_CODE})
    elseif(group STREQUAL "light")
      target_compile_options(${header} PRIVATE ${FATHOM_LIGHT_CODE})
    elseif(group STREQUAL "tests")
      target_compile_options(${header} PRIVATE ${FATHOM_TEST_CODE})
      target_link_libraries(${header} PRIVATE GTest::gtest)
      target_precompile_headers(${header} PRIVATE <filesystem> <fstream> <random> <sstream> <gtest/gtest.h>)
    endif()
  endif()
  target_precompile_headers(${target} REUSE_FROM ${header})
endfunction()

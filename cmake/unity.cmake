# fathom_join_sources(TARGET): compiles the source files of TARGET in groups of eight, because half of the time of a small
# file goes into the headers, and most of the rest into templates that its neighbours instantiate, too. So names in
# anonymous namespaces must differ within a folder. Sources must still include what they use: builds with FATHOM_UNITY=OFF
# (the preset tsan) fail otherwise. Files named methods.cpp, which define macros, and the folders architectures and sets, whose
# files use the same names on purpose, are compiled one by one, as is allocation_limit.cpp, which replaces operator new.
option(FATHOM_UNITY "Compile source files in groups" ON)

function(fathom_join_sources target)
  if(NOT FATHOM_UNITY)
    return()
  endif()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(${target} PRIVATE -Wno-subobject-linkage)  # a file of a group counts as a header
  endif()
  get_target_property(sources ${target} SOURCES)
  list(FILTER sources INCLUDE REGEX "/(methods|allocation_limit)\\.cpp$|/(architectures|sets)/")
  set_source_files_properties(${sources} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
endfunction()

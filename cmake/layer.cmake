# fathom_layer(FOLDER SOURCES FILE...): adds the static library fathom_FOLDER of a folder of src/, linked to the layers
# added before it. fathom_layer_sources(VAR) sets VAR to the sources of the current folder.
#   LIGHT      code that parses and prints: compiled for short build times instead of speed
#   FAST       numeric code: compiled for speed
#   RAW_MEMORY code that reads and writes raw memory: the sanitizers check every pointer
#   NO_PCH     without the precompiled header of standard headers
#   NO_UNITY   without joining source files (unity.cmake)
function(fathom_layer folder)
  cmake_parse_arguments(PARSE_ARGV 1 layer "LIGHT;FAST;RAW_MEMORY;NO_PCH;NO_UNITY" "" "SOURCES")
  set(target fathom_${folder})
  get_property(below GLOBAL PROPERTY FATHOM_LAYERS)
  add_library(${target} STATIC ${layer_SOURCES})
  target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include)
  target_link_libraries(${target} PUBLIC ${below} Threads::Threads)
  set(kind engine)
  if(layer_LIGHT)
    set(kind light)
  elseif(layer_FAST)
    set(kind fast)
  endif()
  target_compile_options(${target} PRIVATE ${FATHOM_CODE_${kind}})
  if(NOT layer_RAW_MEMORY)
    target_compile_options(${target} PRIVATE ${FATHOM_LIGHT_CHECKS})
  endif()
  if(NOT layer_NO_PCH)
    fathom_precompile(${target} ${kind})
  endif()
  if(NOT layer_NO_UNITY)
    fathom_join_sources(${target})
  endif()
  set_property(GLOBAL PROPERTY FATHOM_LAYERS ${target} ${below})  # from the highest to the lowest, the order that linkers need
endfunction()

function(fathom_layer_sources var)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  set(${var} ${sources} PARENT_SCOPE)
endfunction()

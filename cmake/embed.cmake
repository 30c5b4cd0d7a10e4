# fathom_embed(VAR FILE SYMBOL ...): for each pair, writes a source file to the build tree and appends its path to VAR. The
# source file defines `std::string_view fathom::FOLDER::SYMBOL()` (FOLDER: the name of the current folder), which returns
# the bytes of FILE. Declare the functions where they are used.
function(fathom_embed var)
  set(sources ${${var}})
  set(pairs ${ARGN})
  get_filename_component(folder ${CMAKE_CURRENT_SOURCE_DIR} NAME)
  while(pairs)
    list(POP_FRONT pairs input symbol)
    set(output ${PROJECT_BINARY_DIR}/embedded/${symbol}.cpp)
    get_filename_component(input ${input} ABSOLUTE)
    file(READ ${input} text)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${input})
    file(CONFIGURE OUTPUT ${output} @ONLY CONTENT
"#include <string_view>
namespace fathom::${folder} {
std::string_view @symbol@() { return R\"__embedded__(@text@)__embedded__\"; }
}  // namespace fathom::${folder}
")
    list(APPEND sources ${output})
  endwhile()
  set(${var} ${sources} PARENT_SCOPE)
endfunction()

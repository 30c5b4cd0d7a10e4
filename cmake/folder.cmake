# fathom_folder(NAME BELOW): the static library fathom_NAME of all sources in src/NAME, linked to the folders below it.
# A folder without sources yet makes no library.
function(fathom_folder name below)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${name}/*.cpp)
  if(FATHOM_FUZZ AND name STREQUAL "kernels")
    set(sources ${PROJECT_SOURCE_DIR}/src/kernels/types.cpp)  # all that the readers of hostile bytes need
  endif()
  if(NOT sources OR (name STREQUAL "train" AND NOT FATHOM_TRAIN))
    return()
  endif()
  if(name STREQUAL "train")
    # SentencePiece's protobuf collides with libtorch's, so a module of its own links it (src/train/sentence_piece/module.h)
    set(module ${PROJECT_SOURCE_DIR}/src/train/sentence_piece/module.cpp)
    list(REMOVE_ITEM sources ${module})
    add_library(fathom_sentencepiece MODULE ${module})
    set_target_properties(fathom_sentencepiece PROPERTIES PREFIX "" OUTPUT_NAME fathom-sentencepiece
      LIBRARY_OUTPUT_DIRECTORY ${CMAKE_RUNTIME_OUTPUT_DIRECTORY})
    target_include_directories(fathom_sentencepiece PRIVATE ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(fathom_sentencepiece PRIVATE PkgConfig::SENTENCEPIECE)
  endif()
  if(name STREQUAL "eval")
    foreach(list IN ITEMS adjectives common first_names nouns towns)
      fathom_embed(sources ${PROJECT_SOURCE_DIR}/src/eval/words/${list}.txt embedded_${list})
    endforeach()
    set(report ${PROJECT_SOURCE_DIR}/src/eval/report)
    fathom_embed(sources ${report}/page.html embedded_report_page ${report}/report.css embedded_report_css
      ${report}/report.html embedded_report_html
      ${report}/attention.html embedded_attention_html ${report}/attention.js embedded_attention_js
      ${report}/data.js embedded_report_data_js ${report}/draw.js embedded_report_draw_js
      ${report}/charts.js embedded_report_charts_js ${report}/lists.js embedded_report_lists_js
      ${report}/report.js embedded_report_js)
  endif()
  if(name STREQUAL "train")
    set(curves ${PROJECT_SOURCE_DIR}/src/train/curves)
    fathom_embed(sources ${curves}/page.html embedded_training_html ${curves}/curves.js embedded_training_curves_js)
  endif()
  add_library(fathom_${name} STATIC ${sources})
  target_include_directories(fathom_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include)
  target_link_libraries(fathom_${name} PUBLIC ${below} Threads::Threads nlohmann_json::nlohmann_json)
  if(name STREQUAL "eval")
    target_compile_options(fathom_${name} PRIVATE ${FATHOM_LIGHT_SANITIZERS})
  endif()
  if(name STREQUAL "kernels" AND NOT FATHOM_FUZZ)
    target_link_libraries(fathom_${name} PUBLIC PkgConfig::HWY)
    # AVX2, AVX-512, AVX-512 with VNNI, and NEON; older x86 targets are not worth their build time, and vectors of
    # unknown size (SVE) cannot be kept in arrays
    target_compile_definitions(fathom_${name} PRIVATE HWY_WANT_AVX3_DL=1 "HWY_DISABLED_TARGETS=(HWY_SSSE3|HWY_SSE4|HWY_SVE|HWY_SVE2|HWY_SVE_256|HWY_SVE2_128)")
    set_source_files_properties(${sources} PROPERTIES COMPILE_OPTIONS "-fno-math-errno")
  elseif(name STREQUAL "attend")
    target_link_libraries(fathom_${name} PRIVATE Eigen3::Eigen)
  elseif(name STREQUAL "tokens")
    target_link_libraries(fathom_${name} PUBLIC PkgConfig::PCRE2)
  elseif(name STREQUAL "train")
    target_link_libraries(fathom_${name} PUBLIC ${FATHOM_TRAIN_LIBRARIES} ${CMAKE_DL_LIBS})
    add_dependencies(fathom_${name} fathom_sentencepiece)  # loaded when asked for
  endif()
endfunction()

# Links with mold, if installed: every change relinks the programs and the tests of each folder.
find_program(MOLD mold)
if(MOLD)
  add_link_options(-fuse-ld=mold)
endif()

# Links with mold, if it is there: the programs, and the tests of each folder, are linked again after every change.
find_program(MOLD mold)
if(MOLD)
  add_link_options(-fuse-ld=mold)
endif()

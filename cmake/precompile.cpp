// The source of the targets that only build precompiled headers (precompile.cmake).

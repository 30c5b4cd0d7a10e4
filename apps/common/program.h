#pragma once

#include "command_line.h"

namespace fathom {

/// Parses the command line and runs the command it names. Prints an error as one line on stderr. Returns the exit
/// code: 0 success, 1 failure, 2 usage error, 130 interrupted. add_commands: sets name, options and subcommands.
int run_program(int argc, char** argv, const char* description, void (*add_commands)(Command program));

}  // namespace fathom

#pragma once

#include <CLI/CLI.hpp>

namespace fathom {

/// Parses the command line and does what it says; errors go to stderr as one line each. Returns the exit code: 0
/// good, 1 failed, 2 wrong usage, 130 interrupted. add_commands: gives the app its name, options and commands.
int run_program(int argc, char** argv, const char* description, void (*add_commands)(CLI::App& app));

}  // namespace fathom

#pragma once

#include <CLI/CLI.hpp>

namespace fathom {

// Each adds one subcommand with its options; its work is done when the command line has been parsed.
void add_run(CLI::App& app);
void add_chat(CLI::App& app);
void add_tokens(CLI::App& app);
void add_logits(CLI::App& app);
void add_score(CLI::App& app);
void add_bench(CLI::App& app);
void add_eval(CLI::App& app);
void add_train(CLI::App& app);
void add_methods(CLI::App& app);
void add_inspect(CLI::App& app);

}  // namespace fathom

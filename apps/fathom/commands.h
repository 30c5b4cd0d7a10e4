#pragma once

#include "command_line.h"

namespace fathom {

// Each function adds one subcommand: its options and the callback that runs it.
void add_run(Command program);
void add_chat(Command program);
void add_read(Command program);
void add_ask(Command program);
void add_edit(Command program);
void add_context(Command program);
void add_cache(Command program);
void add_retrieve(Command program);
void add_datastore(Command program);
void add_tokens(Command program);
void add_logits(Command program);
void add_score(Command program);
void add_bench(Command program);
void add_eval(Command program);
void add_serve(Command program);
void add_train(Command program);
void add_methods(Command program);
void add_inspect(Command program);

}  // namespace fathom

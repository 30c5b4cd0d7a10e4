// fathom logits: writes rows of logits as raw floats, for comparison with other engines.
#include <algorithm>
#include <bit>
#include <map>

#include "base/error.h"
#include "base/format.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "base/write_file.h"
#include "commands.h"
#include "console.h"
#include "options.h"
#include "session/session.h"
#include "token_list.h"

namespace fathom {
namespace {

static_assert(std::endian::native == std::endian::little, "rows are written without conversion");

struct LogitsOptions {
  CommonOptions common;
  std::string tokens, at, out;
};

/// Parses a list of positions; an empty list is the last position. Throws Error (usage).
std::vector<int64_t> parse_positions(const std::string& list, int64_t tokens) {
  if (list.empty()) return {tokens - 1};
  std::vector<int64_t> positions;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    const auto position = parse_size(list.substr(begin, end - begin));
    if (!position)
      fail_usage("--at: expected positions separated by commas, such as 0,75,150, found ", quote(list));
    if (*position < 0 || *position >= tokens) {
      fail_usage("--at: position ", *position, " does not exist: the list has ", tokens,
                 " tokens, at positions 0 to ", tokens - 1);
    }
    positions.push_back(*position);
    begin = end + 1;
  }
  return positions;
}

void run_logits(const LogitsOptions& options) {
  const std::vector<int32_t> tokens = parse_token_list(read_input(options.tokens), input_name(options.tokens));
  if (tokens.empty()) fail(input_name(options.tokens), ": expected token ids, found none");
  const std::vector<int64_t> positions = parse_positions(options.at, static_cast<int64_t>(tokens.size()));
  const auto model = Model::open(options.common.model_path());
  Session session(model, std::make_shared<Runtime>(static_cast<int>(options.common.threads)),
                  options.common.session(open_adapters(options.common.lora, model)));

  std::map<int64_t, std::vector<float>> rows;
  for (const int64_t position : positions) rows[position];
  Progress progress("reading", "tokens", static_cast<int64_t>(tokens.size()));
  AppendOptions append;
  append.needs_logits = [&](int64_t index) { return rows.contains(index); };
  append.on_logits = [&](int64_t index, std::span<const float> logits) {
    rows[index].assign(logits.begin(), logits.end());
  };
  append.progress = [&](int64_t done) {
    progress.update(done);
    throw_if_interrupted();
  };
  session.append(tokens, append);

  std::vector<float> all;
  for (const int64_t position : positions) all.insert(all.end(), rows[position].begin(), rows[position].end());
  write_file(options.out, std::as_bytes(std::span(all)));
}

}  // namespace

void add_logits(Command program) {
  auto o = std::make_shared<LogitsOptions>();
  Command command =
      program.add_command("logits", "Write logits of a token list to a file, for comparison with other engines");
  command
      .add_option("--tokens", o->tokens,
                  "file with token ids separated by white space; no BOS is added; - is standard input")
      .type_name("FILE")
      .required();
  command
      .add_option("--at", o->at,
                  "positions whose logits are written, separated by commas, such as 0,75,150 [the last]")
      .type_name("LIST");
  command.add_option("-o,--out", o->out, "output file: rows of little-endian float32, in the order of --at")
      .type_name("FILE")
      .required();
  o->common.methods.cache = "f32";  // results are for comparison of models, so pages are not rounded
  add_common_options(command, o->common);
  command.footer(R"(Example:
  fathom tokens --bos < text.txt > ids.txt && fathom logits --tokens ids.txt --at 0,10 -o rows.f32
)");
  command.callback([o] { run_logits(*o); });
}

}  // namespace fathom

// fathom read: reads a text and saves it as a context file.
#include <algorithm>
#include <filesystem>

#include "attend/methods.h"
#include "base/atomic_file.h"
#include "base/error.h"
#include "base/format.h"
#include "base/stopwatch.h"
#include "commands.h"
#include "console.h"
#include "dialogue.h"
#include "saved_context.h"

namespace fathom {
namespace {

struct ReadOptions {
  CommonOptions common;
  std::vector<std::string> files;
  std::string out, system, chat_template, prepare, cartridge;
  bool chat = false, json = false;
};

/// Newest tokens that are read again so that a method sees their queries.
constexpr int64_t kPreparedTokens = 128;

/// Returns the session with another --attend method that has made its state, such as bounds of pages or clusters of
/// keys, from what was read.
Session prepared(const Session& session, const std::string& attend) {
  Session copy = session.fork(attend);
  const int64_t again = std::min(kPreparedTokens, copy.length());
  std::vector<int32_t> last = copy.ids();
  last.erase(last.begin(), last.end() - again);
  copy.rewind(again);
  read_tokens(copy, last);
  return copy;
}

/// Saves a session of the trained slots of a cartridge.
void save_cartridge(const ReadOptions& options, const LoadedModel& loaded, Session& session) {
  session.append_slots(read_cartridge(Gguf::open(options.cartridge)));
  FramedText text;
  text.cartridge = true;
  save_context(session, text, loaded, options.common, options.out, {{"files", Json::array({options.cartridge})}});
  const auto bytes = static_cast<int64_t>(std::filesystem::file_size(options.out));
  if (options.json) {
    write_out(Json{{"file", options.out}, {"tokens", session.length()}, {"bytes", bytes}}.dump() + "\n");
  } else {
    write_out(
        concat(options.out, ": ", session.length(), " slots, ", format_bytes(static_cast<double>(bytes)), "\n"));
  }
}

void run_read(const ReadOptions& options) {
  if (!options.chat && !(options.system.empty() && options.chat_template.empty()))
    fail_usage("-s and --template need --chat");
  if (!options.prepare.empty())
    attend_methods().make(options.prepare);  // reports errors before the model is loaded
  if (options.files.empty() == options.cartridge.empty())
    fail_usage("nothing to read: expected either texts (-f FILE) or a cartridge (--cartridge FILE)");
  check_writable(options.out);
  std::string text;
  Json files = Json::array();
  for (const std::string& file : options.files) {
    text += read_input(file);
    files.push_back(input_name(file));
  }
  const LoadedModel loaded(options.common);
  Session session = loaded.session(options.common);
  if (!options.cartridge.empty()) return save_cartridge(options, loaded, session);
  const FramedText framed = options.chat ? FramedText::of_chat(*open_chat_template(loaded, options.chat_template),
                                                               options.system, std::move(text))
                                         : FramedText{"", std::move(text), "", false};
  const double seconds = read_tokens(session, framed.tokens(*loaded.tokenizer));
  if (!options.prepare.empty()) session = prepared(session, options.prepare);
  const Stopwatch watch;
  save_context(session, framed, loaded, options.common, options.out, {{"files", files}, {"seconds", seconds}});
  const double saving = watch.seconds();
  const auto bytes = static_cast<double>(std::filesystem::file_size(options.out));
  const int64_t tokens = session.length();
  if (options.json) {
    write_out(Json{{"file", options.out},
                   {"tokens", tokens},
                   {"bytes", static_cast<int64_t>(bytes)},
                   {"read_seconds", seconds},
                   {"save_seconds", saving},
                   {"tokens_per_second", rate(tokens, seconds)}}
                  .dump() +
              "\n");
  } else {
    write_out(concat(options.out, ": ", tokens, " tokens, ", format_bytes(bytes), ", read in ",
                     format_seconds(seconds), " (", format_size(rate(tokens, seconds)), " tokens/s), saved in ",
                     format_seconds(saving), "\n"));
  }
}

}  // namespace

void add_read(Command program) {
  auto o = std::make_shared<ReadOptions>();
  Command command = program.add_command("read", "Read a text once and save it, for `fathom ask`");
  command.add_option("-f,--file", o->files, "text to read; repeatable, read in order; - is standard input")
      .type_name("FILE")
      .one_value();
  command
      .add_option("--cartridge", o->cartridge,
                  "instead of a text: the trained slots that `fathom train --cartridge` wrote for one")
      .type_name("FILE");
  command.add_option("-o,--out", o->out, "context file to write; an existing file is replaced when all is read")
      .type_name("FILE")
      .required();
  command.add_flag("--chat", o->chat,
                   "read the text as the beginning of a user message of the model's chat template; the question "
                   "ends the message");
  command.add_option("-s,--system", o->system, "with --chat: the system prompt").type_name("TEXT");
  command
      .add_option("--template", o->chat_template,
                  "with --chat: a chat template in Jinja [the one in the model file]")
      .type_name("FILE");
  command
      .add_option(
          "--prepare", o->prepare,
          "an --attend method for the questions, such as quest:share=0.1 or squeezed: the text is read with "
          "--attend, and what the method computes from it is saved")
      .type_name("METHOD");
  add_common_options(command, o->common);
  command.add_flag("--json", o->json, "print one JSON object with tokens, bytes and seconds");
  command.footer(
      R"(The file holds everything that the model computed from the text: opening it takes milliseconds, whatever the
length. It belongs to the model, its adapters, --position and --cache.

Examples:
  fathom read -f book.txt -o book.ctx
  fathom read -m chat.gguf --chat -f report.txt -o report.ctx --cache q8
)");
  command.callback([o] { run_read(*o); });
}

}  // namespace fathom

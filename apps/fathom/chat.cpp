// fathom chat: a conversation. Each line of stdin is a message.
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "base/interrupt.h"
#include "commands.h"
#include "console.h"
#include "dialogue.h"
#include "saved_context.h"

namespace fathom {
namespace {

struct ChatOptions {
  CommonOptions common;
  SamplingOptions sampling;
  DecodeOptions decode;
  std::string system, chat_template, context_file;
  std::vector<std::string> stop;
  int64_t tokens = 1024;
};

/// Reads lines of stdin. Unlike std::getline, waiting for a line ends on Ctrl-C.
class InputLines {
 public:
  bool terminal() const { return terminal_; }

  /// Returns the next line, or nullopt at the end of the input. Throws Error (interrupted) on Ctrl-C.
  std::optional<std::string> next() {
    if (terminal_) std::fputs("> ", stderr);
    size_t end;
    while ((end = held_.find('\n')) == std::string::npos && !ended_) read_more();
    if (end == std::string::npos && held_.empty()) return std::nullopt;
    std::string line = held_.substr(0, end);
    held_.erase(0, end == std::string::npos ? end : end + 1);
    return line;
  }

 private:
  void read_more() {
    pollfd input{STDIN_FILENO, POLLIN, 0};
    if (::poll(&input, 1, -1) < 0 && errno != EINTR)
      fail("standard input: cannot wait for input: ", std::strerror(errno));
    throw_if_interrupted();
    if (input.revents == 0) return;
    char block[4096];
    const ssize_t count = ::read(STDIN_FILENO, block, sizeof block);
    if (count < 0 && errno != EINTR) fail("standard input: cannot read: ", std::strerror(errno));
    if (count == 0) ended_ = true;
    if (count > 0) held_.append(block, static_cast<size_t>(count));
  }

  std::string held_;
  bool ended_ = false;
  bool terminal_ = ::isatty(STDIN_FILENO) == 1;
};

/// Answers one message. At a terminal, an error or Ctrl-C is printed and the chat continues.
void take_turn(Dialogue& dialogue, const std::string& line, Sampler& sampler, const GenerateOptions& generation,
               bool terminal) {
  try {
    const Generated answer = dialogue.answer(line, sampler, generation, write_out);
    if (!answer.text.ends_with('\n')) write_out("\n");
    if (answer.stop == StopReason::kInterrupted) throw Error("interrupted", Error::Kind::kInterrupted);
  } catch (const Error& error) {
    if (!terminal) throw;
    note(error.what());
    install_interrupt_handler();
  }
}

void run_chat(ChatOptions options) {
  Sampler sampler = options.sampling.sampler();
  std::shared_ptr<const ContextFile> context;
  if (!options.context_file.empty())
    context = open_context_file(options.context_file, options.common, MethodSpecs());
  const LoadedModel loaded(options.common);
  Dialogue dialogue(loaded, options.common, open_chat_template(loaded, options.chat_template), options.system,
                    options.decode);
  if (context) dialogue.begin_with(open_session(loaded, options.common, context), FramedText::of(*context));
  GenerateOptions generation;
  generation.max_tokens = options.tokens;
  generation.stop = options.stop;
  InputLines input;
  if (input.terminal())
    note("/reset starts a new conversation, /exit or Ctrl-D ends the program, Ctrl-C stops an answer");
  while (const auto line = input.next()) {
    if (*line == "/exit") return;
    if (*line == "/reset") {
      dialogue.reset();
    } else if (!line->empty()) {
      take_turn(dialogue, *line, sampler, generation, input.terminal());
    }
  }
}

}  // namespace

void add_chat(Command program) {
  auto o = std::make_shared<ChatOptions>();
  Command command = program.add_command("chat", "Chat with a model; each line is a message");
  command.add_option("-s,--system", o->system, "system prompt").type_name("TEXT");
  command.add_option("--template", o->chat_template, "chat template in Jinja [the one in the model file]")
      .type_name("FILE");
  add_size_option(command, "-n,--tokens", o->tokens, 1, "maximum number of tokens of an answer [1k]");
  add_common_options(command, o->common);
  add_context_options(command, o->common, o->context_file);
  add_sampling_options(command, o->sampling);
  add_decode_options(command, o->decode);
  command.add_option("--stop", o->stop, "end an answer before this text; repeatable").type_name("TEXT").one_value();
  command.footer(
      R"(Each line of stdin is a message. /reset starts a new conversation, /exit or Ctrl-D ends the program, Ctrl-C stops an
answer.

Example:
  fathom chat -m model.gguf -s "Answer in one sentence." --temp 0.7
)");
  command.callback([o] { run_chat(*o); });
}

}  // namespace fathom

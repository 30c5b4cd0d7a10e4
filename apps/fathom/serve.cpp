// fathom serve: an HTTP server for clients of OpenAI's and Anthropic's APIs.
#include "serve/server.h"

#include <chrono>
#include <cstdlib>
#include <thread>

#include "base/error.h"
#include "base/format.h"
#include "base/interrupt.h"
#include "commands.h"
#include "console.h"
#include "decode/drafter.h"
#include "dialogue.h"
#include "eval/machine.h"
#include "loaded_model.h"

namespace fathom {
namespace {

struct ServeOptions {
  CommonOptions common;
  serve::ServerOptions server;
  serve::SchedulerOptions scheduler;
  std::vector<std::string> drafts;
  std::string chat_template, key_file, contexts;
  int64_t port = 8080, max_body = int64_t{64} << 20, max_tokens = -1;
};

constexpr int64_t kServerChunk = 128;                // tokens of a pass; others wait for it
constexpr int64_t kServerCache = int64_t{10} << 30;  // bytes of the disk cache
constexpr int64_t kServerBlock = 512;                // tokens of a block in the disk cache

/// Returns the API keys of the options, the file and $FATHOM_API_KEY.
std::vector<std::string> keys_of(const ServeOptions& options) {
  std::vector<std::string> keys = options.server.keys;
  if (!options.key_file.empty()) {
    const std::string text = read_input(options.key_file);
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find('\n', begin), text.size());
      std::string line = text.substr(begin, end - begin);
      if (line.ends_with('\r')) line.pop_back();
      if (!line.empty()) keys.push_back(std::move(line));
      begin = end + 1;
    }
    if (keys.empty()) fail(options.key_file, ": expected at least one key, one per line");
  }
  if (const char* key = std::getenv("FATHOM_API_KEY"); key && *key) keys.emplace_back(key);
  for (const std::string& key : keys)
    if (key.empty()) fail_usage("--api-key: expected a key, found an empty text");
  return keys;
}

/// Returns the folder where contexts are kept if none is given.
std::string default_contexts() { return DiskCache::default_folder() + "-contexts"; }

void run_serve(ServeOptions options) {
  for (const std::string& draft : options.drafts) check_draft_method(draft);
  options.server.keys = keys_of(options);
  options.server.port = static_cast<int>(options.port);
  options.server.max_body = static_cast<size_t>(options.max_body);
  const bool local =
      options.server.host == "127.0.0.1" || options.server.host == "localhost" || options.server.host == "::1";
  if (!local && options.server.keys.empty())
    note(concat("every machine that reaches ", options.server.host,
                " may use this server: --api-key asks for a key"));
  const bool tls = !options.server.certificate.empty();
  if (tls != !options.server.private_key.empty()) fail_usage("--tls-cert and --tls-key are used together");
  LoadedModel loaded(options.common);
  const int64_t trained = loaded.model->config().trained_context;
  if (options.common.context == 0) options.common.context = trained;
  serve::ServiceOptions service_options;
  service_options.session = options.common.session(loaded.adapters);
  service_options.session.stop = nullptr;
  service_options.session.cache_block =
      (kServerBlock + options.common.chunk - 1) / options.common.chunk * options.common.chunk;
  service_options.drafts = options.drafts.empty() ? std::vector<std::string>{"auto"} : options.drafts;
  service_options.scheduler = options.scheduler;
  service_options.max_tokens = options.max_tokens;
  service_options.contexts = options.contexts.empty() ? default_contexts() : options.contexts;
  service_options.name = loaded.model->config().name.empty() ? "fathom" : loaded.model->config().name;
  service_options.version = FATHOM_VERSION;
  Session(loaded.engine, service_options.session);  // reports wrong methods
  std::unique_ptr<const ChatTemplate> chat_template;
  if (!options.chat_template.empty() || !loaded.tokenizer->vocabulary().chat_template.empty()) {
    chat_template = open_chat_template(loaded, options.chat_template);
  } else {
    note(
        "the model file has no chat template: messages of a conversation are joined by newlines; --template gives "
        "one");
  }
  serve::Service service(loaded.engine, std::shared_ptr<const Tokenizer>(std::move(loaded.tokenizer)),
                         std::move(chat_template), std::move(service_options));
  serve::Server server(service, options.server);
  const int port = server.bind();
  write_out(concat("listening on http", tls ? "s" : "", "://", options.server.host, ":", port, "\n"));
  std::jthread watcher([&](const std::stop_token& ended) {
    while (!ended.stop_requested() && !interrupted()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    service.scheduler().stop();  // ends all streams
    server.stop();
  });
  server.run();
}

}  // namespace

void add_serve(Command program) {
  auto o = std::make_shared<ServeOptions>();
  o->common.chunk = kServerChunk;
  o->common.memory = static_cast<int64_t>(eval::physical_memory() / 2);
  o->common.cache_disk = kServerCache;
  Command command = program.add_command("serve", "Serve the model over HTTP, for clients of OpenAI and Anthropic");
  command.add_option("--host", o->server.host, "address to listen on; 0.0.0.0 for all networks [127.0.0.1]")
      .type_name("ADDRESS");
  add_size_option(command, "--port", o->port, 0, "port to listen on; 0 for any free one [8080]", 65535);
  command
      .add_option("--api-key", o->server.keys,
                  "key that requests need; repeatable: each key has its own contexts and limits "
                  "[$FATHOM_API_KEY, or none]")
      .type_name("KEY")
      .one_value();
  command.add_option("--api-key-file", o->key_file, "file with keys, one per line").type_name("FILE");
  command
      .add_option("--cors", o->server.origin,
                  "web pages of this origin may send requests, such as https://example.org; * for all [none]")
      .type_name("ORIGIN");
  command
      .add_option("--tls-cert", o->server.certificate,
                  "certificate for HTTPS, with its chain, in PEM form; needs --tls-key [none: HTTP]")
      .type_name("FILE");
  command.add_option("--tls-key", o->server.private_key, "private key of --tls-cert, in PEM form")
      .type_name("FILE");
  command.add_option("--contexts", o->contexts, "folder for the contexts of clients [beside the disk cache]")
      .type_name("FOLDER");
  command.add_option("--template", o->chat_template, "a chat template in Jinja [the one in the model file]")
      .type_name("FILE");
  add_size_option(command, "--slots", o->scheduler.slots, 1,
                  "requests that are run together; more serves more clients and takes more memory [16]", 256);
  add_size_option(command, "--queue", o->scheduler.queue, 0, "requests that may wait; others are refused [256]",
                  1024);
  add_size_option(command, "--key-requests", o->scheduler.client_jobs, 1,
                  "open requests of one key; others are refused [64]");
  add_size_option(command, "--key-tokens", o->scheduler.client_tokens, 0,
                  "tokens per minute, read and written, of one key; beyond them its requests are refused until the "
                  "minute allows more; 0 for any number [0]");
  add_share_option(command, "--prompt-share", o->scheduler.prompt_share, "share",
                   "share of the time for reading prompts while others write; more reads prompts sooner and writes "
                   "slower [0.5]")
      .type_name("SHARE");
  add_size_option(command, "--prompt-rows", o->scheduler.prompt_rows, 16,
                  "tokens of a prompt in one pass while others write; fewer let others wait less [32]", 65536);
  add_size_option(command, "--max-tokens", o->max_tokens, 1,
                  "tokens of an answer whose request gives no limit [as many as fit]");
  add_size_option(command, "--max-body", o->max_body, 1024, "bytes of the largest request [64m]");
  add_size_option(command, "--cache-disk", o->common.cache_disk, 0,
                  "bytes of prefixes that are kept on disk, also after a restart; 0 for none [10g]");
  command
      .add_option(
          "--draft", o->drafts,
          "how tokens are drafted; the text stays the same; `fathom methods draft` lists the methods [auto]")
      .type_name("METHOD")
      .one_value();
  add_common_options(command, o->common, MethodChoice::kSession,
                     {"as many as the model was trained with", "half of the machine's memory"});
  command.footer(
      R"(The endpoints are those of OpenAI's API (/v1/chat/completions, /v1/completions, /v1/models), of Anthropic's API
(/v1/messages), and /v1/contexts/NAME, which keeps texts that were read. The address itself shows a page for a browser.

Examples:
  fathom serve -m model.gguf
  fathom serve -m model.gguf --port 9000 --api-key secret --cache-disk 50g
)");
  command.callback([o] { run_serve(*o); });
}

}  // namespace fathom

// Reads a text once and answers several questions about it: answer MODEL.gguf TEXT QUESTION...
#include <cstdio>
#include <memory>

#include "base/error.h"
#include "base/file_map.h"
#include "decode/generate.h"
#include "session/session.h"

int main(int argc, char** argv) try {
  if (argc < 4) throw fathom::Error("usage: answer MODEL.gguf TEXT QUESTION...", fathom::Error::Kind::kUsage);
  auto engine = std::make_shared<fathom::Engine>(fathom::Model::open(argv[1]), std::make_shared<fathom::Runtime>());
  const fathom::Tokenizer tokenizer(fathom::Vocabulary::read(*engine->model().file()));

  fathom::Session book(engine, {.attend = "dense", .cache = "q8"});
  book.append(tokenizer.encode(fathom::FileMap(argv[2]).text()));  // prefill, in chunks

  for (int i = 3; i < argc; ++i) {
    const std::vector<int32_t> question = tokenizer.encode(argv[i], {.add_bos_eos = false});
    fathom::Session fork = book.fork();  // shares the pages of the text
    fork.append(question);
    fathom::Sampler greedy;
    const fathom::Generated answer =
        fathom::generate(fork, tokenizer, greedy, question, {.max_tokens = 32, .stop = {"\n", "."}});
    std::printf("%s%s\n", argv[i], answer.text.c_str());
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "answer: %s\n", error.what());
  return 1;
}

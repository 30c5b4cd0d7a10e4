#include <dlfcn.h>

#include <filesystem>

#include "base/error.h"
#include "train/sentence_piece/module.h"

namespace fathom::train {
namespace {

constexpr char kFileName[] = "fathom-sentencepiece.so";

const SentencePieceModule* load() {
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::string path = (program.parent_path() / kFileName).string();
  int flags = RTLD_NOW | RTLD_LOCAL;
#ifndef __SANITIZE_ADDRESS__  // AddressSanitizer does not support RTLD_DEEPBIND
  flags |= RTLD_DEEPBIND;
#endif
  void* module = ::dlopen(path.c_str(), flags);
  if (!module) fail(path, ": cannot be loaded, but is needed to train a tokenizer: ", ::dlerror());
  void* symbol = ::dlsym(module, kSentencePieceSymbol);
  if (!symbol) fail(path, ": not Fathom's SentencePiece library: ", ::dlerror());
  return reinterpret_cast<const SentencePieceModule* (*)()>(symbol)();
}

}  // namespace

const SentencePieceModule& sentence_piece_module() {
  static const SentencePieceModule* const module = load();
  return *module;
}

}  // namespace fathom::train

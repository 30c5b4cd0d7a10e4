// The names `auto` and `none`, which class Drafter interprets.
#include "decode/draft.h"

namespace fathom {
namespace {

std::unique_ptr<DraftSource> no_source(const Values&, const DraftSetup&) { return nullptr; }

}  // namespace

DraftEntry automatic_drafts_method() {
  return {{.name = "auto",
           .summary = "suffix, copy and recycle together; drafts nothing where that is not faster or does not work",
           .exact = true,
           .needs = "any model",
           .time = "about 20 microseconds per draft; at most about 1 % if no draft is accepted",
           .memory = "O(n) for the text, 32 bytes per token of the vocabulary"},
          no_source};
}

DraftEntry no_drafts_method() {
  return {{.name = "none",
           .summary = "no drafts",
           .exact = true,
           .needs = "any model",
           .time = "none",
           .memory = "none"},
          no_source};
}

}  // namespace fathom

#include "train/token_store.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <limits>
#include <utility>
#include <vector>

#include "base/content_hash.h"
#include "base/error.h"
#include "base/progress.h"
#include "base/write_file.h"

namespace fathom::train {
namespace {

/// The header of the file, little-endian. It is followed by the ids, zeros up to a multiple of 8 bytes, and for
/// each document and the end the number of tokens before it, as uint64.
struct TokenStoreHeader {
  char magic[8];
  uint64_t checksum;  // of all bytes after it
  uint64_t key;
  uint32_t vocabulary, id_bytes;
  uint64_t documents, tokens;
};
static_assert(sizeof(TokenStoreHeader) == 48);
constexpr char kStoreMagic[8] = {'f', 't', 'o', 'k', 'e', 'n', 's', '1'};

constexpr size_t kCheckedFrom = 16;  // the first byte that the checksum covers

uint64_t padded_to_word(uint64_t bytes) { return (bytes + 7) / 8 * 8; }

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

struct TokenizedDocument {
  std::string name;
  std::vector<std::byte> ids;
};

template <class Id>
std::vector<std::byte> id_bytes_of(const std::vector<int32_t>& ids) {
  std::vector<std::byte> bytes(ids.size() * sizeof(Id));
  for (size_t i = 0; i < ids.size(); ++i) {
    const Id id = static_cast<Id>(ids[i]);
    std::memcpy(bytes.data() + i * sizeof(Id), &id, sizeof(Id));
  }
  return bytes;
}

std::vector<TokenizedDocument> tokenized(const Corpus& corpus, const Tokenizer& tokenizer, size_t id_bytes,
                                         int64_t total_bytes) {
  std::vector<TokenizedDocument> documents;
  Progress progress("tokenizing", "bytes", total_bytes);
  int64_t done = 0;
  corpus.for_each([&](const Document& document) {
    std::vector<int32_t> ids = tokenizer.encode(document.text, {.add_bos_eos = false});
    if (tokenizer.vocabulary().eos != kNoToken) ids.push_back(tokenizer.vocabulary().eos);
    documents.push_back({document.name, id_bytes == 2 ? id_bytes_of<uint16_t>(ids) : id_bytes_of<int32_t>(ids)});
    progress.update(done += std::ssize(document.text));
  });
  std::ranges::stable_sort(documents, {}, &TokenizedDocument::name);
  return documents;
}

void write_store(const std::vector<TokenizedDocument>& documents, TokenStoreHeader header,
                 const std::string& path) {
  std::vector<uint64_t> firsts{0};
  for (const TokenizedDocument& document : documents)
    firsts.push_back(firsts.back() + document.ids.size() / header.id_bytes);
  header.documents = documents.size();
  header.tokens = firsts.back();
  std::vector<std::byte> file(sizeof header);
  file.reserve(sizeof header + padded_to_word(header.tokens * header.id_bytes) + firsts.size() * 8);
  for (const TokenizedDocument& document : documents)
    file.insert(file.end(), document.ids.begin(), document.ids.end());
  file.resize(padded_to_word(file.size()));
  const auto index = std::as_bytes(std::span(firsts));
  file.insert(file.end(), index.begin(), index.end());
  std::memcpy(file.data(), &header, sizeof header);
  header.checksum = hash_content(as_text(std::span(file).subspan(kCheckedFrom)));
  std::memcpy(file.data(), &header, sizeof header);
  write_file(path, file);
}

/// Returns whether the header of the file at `path` is that of a token store with this key.
bool has_key(const std::string& path, uint64_t key) {
  if (!std::filesystem::exists(path)) return false;
  const FileMap map(path);
  TokenStoreHeader header;
  if (map.bytes().size() < sizeof header) return false;
  std::memcpy(&header, map.bytes().data(), sizeof header);
  return std::equal(std::begin(kStoreMagic), std::end(kStoreMagic), header.magic) && header.key == key;
}

/// Checks the header, the file size and the checksum. Returns the header. Throws Error.
TokenStoreHeader checked_header(std::span<const std::byte> bytes, const std::string& path) {
  TokenStoreHeader header;
  if (bytes.size() < sizeof header) fail(path, ": not a token store: expected ", sizeof header, " bytes or more");
  std::memcpy(&header, bytes.data(), sizeof header);
  if (!std::equal(std::begin(kStoreMagic), std::end(kStoreMagic), header.magic))
    fail(path, ": not a token store: expected 'ftokens1' at the beginning");
  if (header.id_bytes != 2 && header.id_bytes != 4)
    fail(path, ": bytes of an id: expected 2 or 4, found ", header.id_bytes);
  const uint64_t rest = bytes.size() - sizeof header;
  if (header.tokens > rest / header.id_bytes || header.documents >= rest / 8 ||
      padded_to_word(header.tokens * header.id_bytes) + (header.documents + 1) * 8 != rest) {
    fail(path, ": ", header.tokens, " tokens in ", header.documents, " documents do not match the file size of ",
         bytes.size(), " bytes: it is truncated or damaged");
  }
  if (hash_content(as_text(bytes.subspan(kCheckedFrom))) != header.checksum)
    fail(path, ": damaged: wrong checksum; delete the file, then the next run makes it again");
  if (header.vocabulary > static_cast<uint32_t>(std::numeric_limits<int32_t>::max()))
    fail(path, ": vocabulary of ", header.vocabulary, " tokens, expected fewer than 2^31");
  return header;
}

}  // namespace

TokenStore TokenStore::open(const std::string& path) {
  TokenStore store{FileMap(path)};
  const TokenStoreHeader header = checked_header(store.map_.bytes(), path);
  store.key_ = header.key;
  store.vocabulary_ = static_cast<int32_t>(header.vocabulary);
  store.id_bytes_ = static_cast<int32_t>(header.id_bytes);
  store.documents_ = static_cast<int64_t>(header.documents);
  store.ids_ = store.map_.bytes().data() + sizeof header;
  store.firsts_ = store.ids_ + padded_to_word(header.tokens * header.id_bytes);
  for (int64_t i = 0; i < store.documents_; ++i) {
    if (store.first(i) > store.first(i + 1)) fail(path, ": damaged: document ", i, " ends before it begins");
  }
  if (store.first(0) != 0 || store.first(store.documents_) != header.tokens)
    fail(path, ": damaged: the documents do not have ", header.tokens, " tokens in total");
  store.check_ids(path);
  return store;
}

uint64_t TokenStore::first(int64_t document) const {
  uint64_t number;
  std::memcpy(&number, firsts_ + 8 * document, sizeof number);
  return number;
}

void TokenStore::check_ids(const std::string& path) const {
  std::vector<int32_t> ids;
  for (int64_t document = 0; document < documents_; ++document) {
    ids.resize(static_cast<size_t>(length(document)));
    copy(document, 0, ids);
    for (const int32_t id : ids) {
      if (id < 0 || id >= vocabulary_)
        fail(path, ": document ", document, ": expected ids below ", vocabulary_, ", found ", id);
    }
  }
}

void TokenStore::copy(int64_t document, int64_t begin, std::span<int32_t> ids) const {
  const std::byte* from = ids_ + (first(document) + static_cast<uint64_t>(begin)) * id_bytes_;
  if (id_bytes_ == 4) {
    std::memcpy(ids.data(), from, ids.size_bytes());
    return;
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    uint16_t id;
    std::memcpy(&id, from + 2 * i, sizeof id);
    ids[i] = id;
  }
}

uint64_t token_store_key(const CorpusFacts& facts, const Vocabulary& vocabulary) {
  ContentHash hash;
  hash.add(facts.fingerprint);
  hash.add(static_cast<uint64_t>(vocabulary.kind));
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    const float score = vocabulary.score(id);
    hash.add(vocabulary.pieces[id]);
    hash.add(std::string_view(reinterpret_cast<const char*>(&score), sizeof score));
    hash.add(static_cast<uint64_t>(vocabulary.type(id)));
  }
  for (const std::string& merge : vocabulary.merges) hash.add(merge);
  hash.add(vocabulary.pre);
  hash.add(vocabulary.charsmap);
  hash.add(static_cast<uint64_t>(vocabulary.add_space_prefix) * 2 + vocabulary.remove_extra_whitespaces);
  hash.add(static_cast<uint64_t>(vocabulary.eos));
  return hash.value();
}

TokenStore tokenize_corpus(const Corpus& corpus, const Tokenizer& tokenizer, const std::string& path) {
  const CorpusFacts facts = corpus.facts();
  const uint64_t key = token_store_key(facts, tokenizer.vocabulary());
  if (!has_key(path, key)) {
    TokenStoreHeader header{};
    std::copy(std::begin(kStoreMagic), std::end(kStoreMagic), header.magic);
    header.key = key;
    header.vocabulary = static_cast<uint32_t>(tokenizer.size());
    header.id_bytes = tokenizer.size() <= std::numeric_limits<uint16_t>::max() + 1 ? 2 : 4;
    write_store(tokenized(corpus, tokenizer, header.id_bytes, facts.bytes), header, path);
  }
  return TokenStore::open(path);
}

}  // namespace fathom::train

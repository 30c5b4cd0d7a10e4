#include "formats/context_file.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/checksum.h"
#include "base/error.h"
#include "base/format.h"

namespace fathom {
namespace {

static_assert(std::endian::native == std::endian::little, "context files are little-endian");

constexpr std::array<char, 8> kContextMagic{'F', 'A', 'T', 'H', 'O', 'M', 'C', 'X'};
constexpr uint32_t kContextVersion = 1;
constexpr uint64_t kMaxSections = 4096;
constexpr int64_t kMaxTokens = int64_t{1} << 40;

struct ContextHeader {
  std::array<char, 8> magic = kContextMagic;
  uint32_t version = kContextVersion;
  uint32_t sections = 0;
  uint64_t file_bytes = 0;
  uint64_t directory_offset = 0, directory_checksum = 0;
  uint64_t reserved[2] = {};
  uint64_t checksum = 0;  // of the fields before it
};
static_assert(sizeof(ContextHeader) == 64);

static_assert(sizeof(ContextSection) == 40);

/// Precedes the entries of each page table.
struct TableHeader {
  uint64_t entries = 0, original_indices = 0;
  int64_t compacted_begin = 0, compacted_shift = 0;
};

template <class T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

uint64_t header_checksum(const ContextHeader& header) {
  return checksum(bytes_of(header).first(offsetof(ContextHeader, checksum)));
}

uint64_t parse_hex(const Json& json) {
  const std::string& text = json.text();
  uint64_t number = 0;
  if (text.size() != 16) fail("expected 16 hexadecimal digits, found ", quote(text));
  for (const char c : text) {
    const size_t digit = std::string_view("0123456789abcdef").find(c);
    if (digit == std::string_view::npos) fail("expected 16 hexadecimal digits, found ", quote(text));
    number = number << 4 | digit;
  }
  return number;
}

constexpr std::array<std::pair<PageFormat, std::string_view>, 4> kFormatNames{
    {{PageFormat::kBF16, "bf16"}, {PageFormat::kF32, "f32"}, {PageFormat::kQ8, "q8"}, {PageFormat::kQ4, "q4"}}};

std::string_view name_of(PageFormat format) {
  return std::ranges::find(kFormatNames, format, &std::pair<PageFormat, std::string_view>::first)->second;
}

PageFormat parse_format(const std::string& name) {
  const auto found = std::ranges::find(kFormatNames, name, &std::pair<PageFormat, std::string_view>::second);
  if (found == kFormatNames.end()) fail("unknown page format ", quote(name));
  return found->first;
}

/// Returns a number of a JSON object, which must be in [min, max].
int64_t number_of(const Json& json, std::string_view key, int64_t min, int64_t max) {
  const auto value = json.at(key).get<int64_t>();
  if (value < min || value > max) fail(key, ": expected a number from ", min, " to ", max, ", found ", value);
  return value;
}

}  // namespace

size_t ContextPages::page_bytes() const {
  return page_key_bytes(format, key_dim) + (value_offset >= 0 ? 0 : page_value_bytes(format, value_dim));
}

Json ContextInfo::to_json() const {
  Json json{{"model",
             {{"path", model_path},
              {"name", model_name},
              {"architecture", architecture},
              {"fingerprint", format_hex(fingerprint)}}},
            {"tokens", tokens},
            {"position", position},
            {"cache", cache},
            {"attend", attend},
            {"evict", evict},
            {"context", context},
            {"model_layers", model_layers},
            {"chunk", chunk}};
  json["adapters"] = Json::array();
  for (const ContextAdapter& adapter : adapters)
    json["adapters"].push_back(
        {{"path", adapter.path}, {"hash", format_hex(adapter.hash)}, {"scale", adapter.scale}});
  json["rotary"] = Json::array();
  for (const uint64_t sum : rotary) json["rotary"].push_back(format_hex(sum));
  json["pages"] = Json::array();
  for (const ContextPages& shape : pages)
    json["pages"].push_back({{"format", std::string(name_of(shape.format))},
                             {"key_dim", shape.key_dim},
                             {"value_dim", shape.value_dim},
                             {"value_offset", shape.value_offset},
                             {"count", shape.count}});
  json["layers"] = Json::array();
  for (const ContextLayer& layer : layers)
    json["layers"].push_back(
        {{"pages", layer.pages}, {"heads", layer.heads}, {"state_floats", layer.state_floats}});
  json["notes"] = notes;
  return json;
}

ContextInfo ContextInfo::parse(std::string_view text) {
  const Json json = Json::parse(text);
  ContextInfo info;
  const Json& model = json.at("model");
  info.model_path = model.at("path").text();
  info.model_name = model.at("name").text();
  info.architecture = model.at("architecture").text();
  info.fingerprint = parse_hex(model.at("fingerprint"));
  info.tokens = number_of(json, "tokens", 0, kMaxTokens);
  info.position = json.at("position").text();
  info.cache = json.at("cache").text();
  info.attend = json.at("attend").text();
  info.evict = json.at("evict").text();
  info.context = number_of(json, "context", 0, kMaxTokens);
  info.model_layers = number_of(json, "model_layers", 0, 1 << 16);
  info.chunk = number_of(json, "chunk", 1, kMaxTokens);
  for (const Json& adapter : json.at("adapters").items())
    info.adapters.push_back(
        {adapter.at("path").text(), parse_hex(adapter.at("hash")), adapter.at("scale").get<float>()});
  for (const Json& sum : json.at("rotary").items()) info.rotary.push_back(parse_hex(sum));
  constexpr int kMaxDim = 1 << 16;
  for (const Json& shape : json.at("pages").items()) {
    ContextPages pages;
    pages.format = parse_format(shape.at("format").text());
    pages.key_dim = static_cast<int>(number_of(shape, "key_dim", 2, kMaxDim));
    pages.value_dim = static_cast<int>(number_of(shape, "value_dim", 1, kMaxDim));
    pages.value_offset = static_cast<int>(number_of(shape, "value_offset", -1, kMaxDim));
    pages.count = number_of(shape, "count", 0, ContextEntry::kNoPage - 1);
    if (pages.key_dim % 2 != 0) fail("key_dim: expected an even number, found ", pages.key_dim);
    info.pages.push_back(pages);
  }
  for (const Json& item : json.at("layers").items()) {
    ContextLayer layer;
    layer.pages = static_cast<int>(number_of(item, "pages", -1, std::ssize(info.pages) - 1));
    layer.heads = static_cast<int>(number_of(item, "heads", 0, 1 << 16));
    layer.state_floats = number_of(item, "state_floats", 0, kMaxTokens);
    if ((layer.pages < 0) != (layer.heads == 0)) fail("layers: expected heads exactly in layers with pages");
    info.layers.push_back(layer);
  }
  info.notes = json.at("notes");
  return info;
}

void ContextWriter::begin(std::string_view name, uint64_t alignment) {
  file_.align(alignment);
  ContextSection section;
  if (name.size() >= section.name.size()) fail("the name of a section is too long: ", name);
  std::ranges::copy(name, section.name.begin());
  section.offset = file_.size();
  sections_.push_back(section);
  sum_ = std::make_unique<Checksum>();
}

void ContextWriter::write(std::span<const std::byte> bytes) {
  file_.write(bytes);
  sum_->add(bytes);
}

void ContextWriter::end() {
  sections_.back().size = file_.size() - sections_.back().offset;
  sections_.back().checksum = sum_->value();
}

void ContextWriter::add(std::string_view name, std::span<const std::byte> bytes) {
  begin(name, 64);
  write(bytes);
  end();
}

void ContextWriter::add_tables(std::span<const ContextTable> tables) {
  begin("tables", 64);
  for (const ContextTable& table : tables) {
    const TableHeader header{table.entries.size(), table.original_indices.size(), table.compacted_begin,
                             table.compacted_shift};
    write(bytes_of(header));
    write(std::as_bytes(table.entries));
    write(std::as_bytes(table.original_indices));
  }
  end();
}

void ContextWriter::add_states(int layer, std::span<const int64_t> tokens, std::span<const float* const> states,
                               int64_t floats) {
  begin(concat("state.", layer), 64);
  write(std::as_bytes(tokens));
  for (const float* state : states) write(std::as_bytes(std::span(state, floats)));
  end();
}

void ContextWriter::begin_pages(size_t index) {
  begin(concat("pages.", index), 4096);
  pages_index_ = index;
  page_sums_.clear();
}

void ContextWriter::add_page(std::span<const std::byte> page) {
  file_.write(page);
  page_sums_.push_back(checksum(page));
  sections_.back().size += page.size();
}

void ContextWriter::end_pages() { add(concat("sums.", pages_index_), std::as_bytes(std::span(page_sums_))); }

void ContextWriter::finish(const ContextInfo& info, bool sync) {
  const std::string text = info.to_json().dump();
  add("info", std::as_bytes(std::span(text)));
  file_.align(64);
  ContextHeader header;
  header.sections = static_cast<uint32_t>(sections_.size());
  header.directory_offset = file_.size();
  const auto bytes = std::as_bytes(std::span(sections_));
  header.directory_checksum = checksum(bytes);
  file_.write(bytes);
  header.file_bytes = file_.size();
  header.checksum = header_checksum(header);
  file_.write_at(0, bytes_of(header));
  file_.commit(sync);
}

ContextFile::ContextFile(const std::string& path) : path_(path), map_(std::make_unique<FileMap>(path)) {
  bytes_ = map_->bytes();
  read();
}

ContextFile::ContextFile(std::span<const std::byte> bytes, std::string name, bool verify)
    : path_(std::move(name)), bytes_(bytes), verify_(verify) {
  read();
}

template <class... Parts>
void ContextFile::damaged(const Parts&... parts) const {
  fail(path_, ": the context file is damaged: ", parts...);
}

void ContextFile::read() {
  read_sections();
  const std::span<const std::byte> info = section("info");
  try {
    info_ = ContextInfo::parse({reinterpret_cast<const char*>(info.data()), info.size()});
  } catch (const Error& error) {
    damaged("its description: ", error.what());
  }
  tokens_ = list<int32_t>("tokens");
  if (std::ssize(tokens_) != info_.tokens) damaged("expected ", info_.tokens, " tokens, found ", tokens_.size());
  offsets_ = list<int64_t>("offsets");
  if (!offsets_.empty()) {
    const auto in_text = [&](int64_t offset) { return offset >= 0 && offset <= std::ssize(text()); };
    if (offsets_.size() != tokens_.size() || !std::ranges::is_sorted(offsets_) ||
        !std::ranges::all_of(offsets_, in_text))
      damaged("the offsets of the tokens do not fit its text");
  }
  logits_ = list<float>("logits");
  read_pages();
  read_tables();
  read_states();
}

void ContextFile::read_sections() {
  ContextHeader header;
  if (bytes_.size() < sizeof header || std::memcmp(bytes_.data(), kContextMagic.data(), kContextMagic.size()) != 0)
    fail(path_, ": not a context file, which `fathom read` writes");
  std::memcpy(&header, bytes_.data(), sizeof header);
  if (header.version != kContextVersion)
    fail(path_, ": a context file of version ", header.version, "; this program reads version ", kContextVersion,
         ": read the text again");
  if (verify_ && header.checksum != header_checksum(header)) damaged("its header was altered");
  if (header.file_bytes < bytes_.size()) damaged(bytes_.size() - header.file_bytes, " bytes after the end");
  if (header.file_bytes > bytes_.size()) damaged("expected ", header.file_bytes, " bytes, found ", bytes_.size());
  if (header.sections > kMaxSections || header.directory_offset > bytes_.size() ||
      (bytes_.size() - header.directory_offset) / sizeof(ContextSection) < header.sections)
    damaged("its list of sections is outside the file");
  const uint64_t end = header.directory_offset + header.sections * sizeof(ContextSection);
  if (end < bytes_.size()) damaged(bytes_.size() - end, " bytes after the end");
  const std::span<const std::byte> directory =
      bytes_.subspan(header.directory_offset, header.sections * sizeof(ContextSection));
  if (verify_ && checksum(directory) != header.directory_checksum) damaged("its list of sections was altered");
  for (uint32_t i = 0; i < header.sections; ++i) {
    ContextSection record;
    std::memcpy(&record, directory.data() + i * sizeof record, sizeof record);
    const char* name = reinterpret_cast<const char*>(directory.data() + i * sizeof record);
    const std::string_view text(name, strnlen(name, record.name.size()));
    if (record.offset % 64 != 0 || record.offset > bytes_.size() || record.size > bytes_.size() - record.offset)
      damaged("section ", quote(text), " is outside the file");
    const std::span<const std::byte> contents = bytes_.subspan(record.offset, record.size);
    if (verify_ && !text.starts_with("pages.") && checksum(contents) != record.checksum)
      damaged("section ", quote(text), " was altered");
    if (std::ranges::count(sections_, text, &Named::name) > 0) damaged("section ", quote(text), " appears twice");
    sections_.push_back({text, contents});
  }
}

std::span<const std::byte> ContextFile::section(std::string_view name) const {
  const auto found = std::ranges::find(sections_, name, &Named::name);
  return found == sections_.end() ? std::span<const std::byte>() : found->bytes;
}

template <class T>
std::span<const T> ContextFile::list(std::string_view name) const {
  const std::span<const std::byte> bytes = section(name);
  if (bytes.size() % sizeof(T) != 0) damaged("section ", quote(name), " has ", bytes.size(), " bytes");
  return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
}

std::string_view ContextFile::text() const {
  const std::span<const std::byte> bytes = section("text");
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

uint64_t ContextFile::offset_of(std::string_view name) const {
  const std::span<const std::byte> bytes = section(name);
  return bytes.data() ? static_cast<uint64_t>(bytes.data() - bytes_.data()) : 0;
}

void ContextFile::read_pages() {
  for (size_t i = 0; i < info_.pages.size(); ++i) {
    const std::span<const std::byte> pages = section(concat("pages.", i));
    const auto sums = list<uint64_t>(concat("sums.", i));
    const auto count = static_cast<size_t>(info_.pages[i].count);
    if (pages.size() / info_.pages[i].page_bytes() != count || pages.size() % info_.pages[i].page_bytes() != 0 ||
        sums.size() != count)
      damaged("expected ", count, " pages of ", info_.pages[i].page_bytes(), " bytes, found ", pages.size(),
              " bytes and ", sums.size(), " checksums");
    pages_.push_back(pages);
    page_sums_.push_back(sums);
  }
}

void ContextFile::read_tables() {
  std::span<const std::byte> left = section("tables");
  const auto take = [&](size_t bytes) {
    if (bytes > left.size()) damaged("its page tables end early");
    const auto taken = left.first(bytes);
    left = left.subspan(bytes);
    return taken;
  };
  std::vector<std::vector<char>> used;
  for (const ContextPages& shape : info_.pages) used.emplace_back(shape.count, 0);
  for (const ContextLayer& layer : info_.layers) {
    first_table_.push_back(tables_.size());
    for (int head = 0; head < layer.heads; ++head) {
      TableHeader header;
      std::memcpy(&header, take(sizeof header).data(), sizeof header);
      const uint64_t limit = left.size() / sizeof(int64_t);
      if (header.entries > limit || header.original_indices > limit) damaged("its page tables end early");
      ContextTable table;
      table.compacted_begin = header.compacted_begin;
      table.compacted_shift = header.compacted_shift;
      const auto entries = take(header.entries * sizeof(ContextEntry));
      table.entries = {reinterpret_cast<const ContextEntry*>(entries.data()), header.entries};
      const auto indices = take(header.original_indices * sizeof(int64_t));
      table.original_indices = {reinterpret_cast<const int64_t*>(indices.data()), header.original_indices};
      check_table(table, info_.pages[layer.pages], used[layer.pages]);
      tables_.push_back(table);
      // Tables of a layer differ only in pages and masks, unless they were compacted.
      const ContextTable& first = tables_[first_table_.back()];
      const auto same = [](const ContextEntry& a, const ContextEntry& b) {
        return a.first == b.first && a.position == b.position && a.filled == b.filled;
      };
      if (table.original_indices.empty() && first.original_indices.empty() &&
          !std::ranges::equal(table.entries, first.entries, same))
        damaged("the page tables of a layer do not fit together");
    }
  }
  if (!left.empty()) damaged("its page tables are followed by ", left.size(), " bytes");
  for (const std::vector<char>& shape : used)
    if (std::ranges::count(shape, 0) > 0) damaged("it has pages that no table refers to");
}

/// Checks one table: its entries cover consecutive tokens up to the last one, and each page is used once.
void ContextFile::check_table(const ContextTable& table, const ContextPages& pages, std::vector<char>& used) const {
  const int64_t limit = max_context_position(info_.tokens);
  const auto bad = [&](const auto&... parts) { damaged("a page table ", parts...); };
  const auto is_token = [&](int64_t n) { return n >= 0 && n <= info_.tokens; };
  const int64_t begin = table.entries.empty() ? info_.tokens : table.entries.front().first;
  if (table.original_indices.empty() ? begin != 0 : table.compacted_begin < begin)
    bad("does not begin at the first token");
  if (!table.original_indices.empty()) {
    const std::span<const int64_t> original = table.original_indices;
    bool valid = is_token(table.compacted_begin) && is_token(table.compacted_begin + std::ssize(original)) &&
                 table.compacted_shift > -limit && table.compacted_shift < limit && original[0] >= 0;
    for (int64_t i = 0; valid && i < std::ssize(original); ++i)
      valid = original[i] <= table.compacted_begin + i && (i == 0 || original[i - 1] < original[i]);
    if (!valid) bad("has wrong original indices");
  }
  int64_t next = begin;
  for (const ContextEntry& entry : table.entries) {
    if (entry.filled < 1 || entry.filled > kPageTokens || entry.first != next) bad("has a gap at token ", next);
    next += entry.filled;
    if (entry.position < 0 || entry.position >= limit - kPageTokens) bad("has position ", entry.position);
    if (entry.filled < kPageTokens && entry.mask >> entry.filled != 0) bad("shows tokens that were not written");
    if (entry.page == ContextEntry::kNoPage) {
      if (entry.mask != 0 || entry.filled != kPageTokens) bad("lacks the page of token ", entry.first);
      continue;
    }
    if (entry.page >= static_cast<uint64_t>(pages.count)) bad("refers to page ", entry.page, " of ", pages.count);
    if (used[entry.page]++) bad("refers twice to page ", entry.page);
  }
  if (begin < 0 || next != info_.tokens) bad("has ", next, " of ", info_.tokens, " tokens");
}

void ContextFile::read_states() {
  states_.resize(info_.layers.size());
  for (size_t layer = 0; layer < info_.layers.size(); ++layer) {
    const int64_t floats = info_.layers[layer].state_floats;
    if (floats == 0) continue;
    const std::span<const std::byte> bytes = section(concat("state.", layer));
    const uint64_t size = sizeof(int64_t) + static_cast<uint64_t>(floats) * sizeof(float);
    if (bytes.size() % size != 0) damaged("the states of layer ", layer, " have ", bytes.size(), " bytes");
    const size_t count = bytes.size() / size;
    ContextStates& states = states_[layer];
    states.tokens = {reinterpret_cast<const int64_t*>(bytes.data()), count};
    states.floats = {reinterpret_cast<const float*>(bytes.data() + count * sizeof(int64_t)), count * floats};
    const bool ascending =
        std::ranges::adjacent_find(states.tokens, std::ranges::greater_equal()) == states.tokens.end();
    if (!ascending || (info_.tokens > 0) != (count > 0) ||
        (count > 0 && (states.tokens.front() <= 0 || states.tokens.back() != info_.tokens)))
      damaged("the states of layer ", layer, " do not belong to its ", info_.tokens, " tokens");
  }
}

void ContextFile::check_page(size_t index, size_t page) const {
  const size_t bytes = info_.pages[index].page_bytes();
  if (checksum(pages_[index].subspan(page * bytes, bytes)) != page_sums_[index][page])
    damaged("page ", page, " of ", page_sums_[index].size(), " was altered");
}

void ContextFile::verify(const std::function<void(int64_t bytes)>& progress) const {
  constexpr size_t kProgressPages = 256;
  std::vector<Named> sections = sections_;
  std::ranges::sort(sections, {}, [](const Named& section) { return section.bytes.data(); });
  ContextHeader header;
  std::memcpy(&header, bytes_.data(), sizeof header);
  const std::byte* end = bytes_.data() + sizeof header;
  const auto expect_zeros = [&](const std::byte* to) {
    if (to > end && std::any_of(end, to, [](std::byte b) { return b != std::byte{0}; }))
      damaged("bytes between sections were altered");
  };
  for (const Named& section : sections) {
    expect_zeros(section.bytes.data());
    end = section.bytes.data() + section.bytes.size();
  }
  expect_zeros(bytes_.data() + header.directory_offset);
  for (size_t shape = 0; shape < pages_.size(); ++shape) {
    for (size_t page = 0; page < page_sums_[shape].size(); ++page) {
      check_page(shape, page);
      if (progress && page % kProgressPages == 0)
        progress(pages_[shape].data() - bytes_.data() +
                 static_cast<int64_t>(page * info_.pages[shape].page_bytes()));
    }
  }
}

}  // namespace fathom

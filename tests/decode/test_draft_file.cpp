// Files of trained drafts: what is read, and that damaged and contradictory files give errors.
#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"
#include "decode/drafts/draft_heads.h"
#include "decode/drafts/long_drafter.h"
#include "draft_files.h"

namespace fathom {
namespace {

DraftFile open(const std::vector<std::byte>& bytes, const std::string& kind) {
  return DraftFile::from(Gguf::parse(bytes, "draft.gguf"), kind, *test::floats());
}

std::string draft_file_error(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

Session session_of_floats() { return {test::floats(), test::draft_runtime(), {.cache = "f32"}}; }

/// Opens a file as the source of its kind does.
void open_all(const std::vector<std::byte>& bytes, const std::string& kind) {
  DraftFile file = open(bytes, kind);
  if (kind == "heads") {
    DraftHeads(std::move(file), test::floats());
  } else {
    Session session = session_of_floats();
    LongDrafter(std::move(file), session);
  }
}

test::TrainedDraft heads() { return test::random_heads(test::floats()->config(), true, false); }
test::TrainedDraft longspec() {
  return test::random_longspec(test::floats()->config(), test::floats()->network().attention().back());
}

TEST(DraftFile, ReadsMetadataMatricesAndVectors) {
  const test::TrainedDraft draft = heads();
  const std::vector<std::byte> bytes = draft.bytes();
  const DraftFile file = open(bytes, "heads");
  EXPECT_EQ(file.integer("steps", 1, 8), 3);
  EXPECT_TRUE(file.boolean("sequential"));
  EXPECT_TRUE(file.has("head.0.block.0.bias"));
  EXPECT_FALSE(file.has("head.0.output.weight"));
  EXPECT_EQ(file.vector("head.0.block.0.bias", 64), draft.tensors.at("head.0.block.0.bias").values);
  const Matrix matrix = file.matrix("head.1.residual.weight", 64, 192);
  EXPECT_EQ(matrix.type, WeightType::kF32);
  EXPECT_EQ(reinterpret_cast<const float*>(matrix.row(5))[7],
            draft.tensors.at("head.1.residual.weight").values[5 * 192 + 7]);
  const std::vector<std::byte> transfer = test::random_transfer(test::floats()->config(), {1, 2, 2}).bytes();
  EXPECT_EQ(open(transfer, "hidden-transfer").ascending("transfer.layers", 3, 1, 2), (std::vector{1, 2, 2}));
}

TEST(DraftFile, ErrorsNameTheFileTheFieldAndTheExpectedValue) {
  struct Case {
    std::function<void(test::TrainedDraft&)> change;
    std::string text;
  };
  const std::string key = "draft.gguf: metadata key ";
  const Case cases[] = {
      {[](auto& d) { d.type = "model"; }, key + "'general.type': expected 'draft', found 'model'"},
      {[](auto& d) { d.kind = "medusa"; }, key + "'draft.kind': expected 'heads', found 'medusa'"},
      {[](auto& d) { d.kind = "longspec"; }, key + "'draft.kind': expected 'heads', found 'longspec'"},
      {[](auto& d) { d.keys["draft.width"] = 65; },
       key + "'draft.width': expected 64, the width of the model, found 65"},
      {[](auto& d) { d.keys["draft.vocabulary"] = 500; },
       key + "'draft.vocabulary': expected 512, the number of tokens of the model, found 500"},
      {[](auto& d) { d.keys["draft.layers"] = 4; },
       key + "'draft.layers': expected 3, the number of layers of the model, found 4"},
      {[](auto& d) { d.keys["draft.steps"] = 9; }, key + "'draft.steps': expected an integer from 1 to 8, found 9"},
      {[](auto& d) { d.keys["draft.blocks"] = 0; },
       key + "'draft.blocks': expected an integer from 1 to 64, found 0"},
      {[](auto& d) { d.flags.clear(); }, key + "'draft.sequential': expected true or false, found none"},
  };
  for (const Case& c : cases) {
    test::TrainedDraft draft = heads();
    c.change(draft);
    EXPECT_EQ(draft_file_error([&] { open_all(draft.bytes(), "heads"); }), c.text);
  }
  test::TrainedDraft missing = heads(), narrow = heads(), independent = heads();
  missing.tensors.erase("head.2.block.1.bias");
  narrow.tensors["head.1.block.0.weight"] = narrow.tensors["head.0.block.0.weight"];
  independent.flags["draft.sequential"] = false;  // the first blocks are too wide
  for (const auto& [draft, tensor] :
       {std::pair(&missing, "head.2.block.1.bias"), std::pair(&narrow, "head.1.block.0.weight"),
        std::pair(&independent, "head.0.block.0.weight")}) {
    const std::string text = draft_file_error([&] { open_all(draft->bytes(), "heads"); });
    EXPECT_TRUE(text.starts_with("draft.gguf: ")) << text;
    EXPECT_NE(text.find(tensor), std::string::npos) << text;
  }
  test::TrainedDraft odd = longspec(), heads_of_3 = longspec(), base = longspec();
  odd.keys["draft.head_dim"] = 7;
  heads_of_3.keys["draft.heads"] = 3;
  base.numbers["draft.rope_base"] = 0;
  EXPECT_EQ(draft_file_error([&] { open_all(odd.bytes(), "longspec"); }),
            key + "'draft.head_dim': expected a multiple of 2 up to 1048576, found 7");
  EXPECT_EQ(draft_file_error([&] { open_all(heads_of_3.bytes(), "longspec"); }),
            key + "'draft.heads': expected a multiple of 2 up to 1048576, found 3");
  EXPECT_EQ(draft_file_error([&] { open_all(base.bytes(), "longspec"); }),
            key + "'draft.rope_base': expected a number from 2 to 1e+12, found 0");
  for (const std::vector<int32_t>& layers : {std::vector<int32_t>{0, 1}, {2, 1}, {1, 3}, {1}}) {
    test::TrainedDraft transfer = test::random_transfer(test::floats()->config(), {1, 1});
    transfer.lists["draft.transfer.layers"] = layers;
    const std::vector<std::byte> bytes = transfer.bytes();
    const std::string text =
        draft_file_error([&] { open(bytes, "hidden-transfer").ascending("transfer.layers", 2, 1, 2); });
    EXPECT_TRUE(text.starts_with(key + "'draft.transfer.layers': expected 2 ascending integers from 1 to 2, found"))
        << text;
  }
}

/// Opens a damaged file, which may succeed or throw Error. Returns whether it succeeded.
bool opens(const std::vector<std::byte>& bytes, const std::string& kind) {
  try {
    open_all(bytes, kind);
    return true;
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return false;
  }
}

TEST(DraftFile, TruncatedFilesGiveErrors) {
  for (const test::TrainedDraft& draft : {heads(), longspec()}) {
    std::vector<std::byte> bytes = draft.bytes();
    ASSERT_TRUE(opens(bytes, draft.kind));
    while (!bytes.empty()) {
      bytes.resize(bytes.size() - 1 - bytes.size() / 50);
      EXPECT_FALSE(opens(bytes, draft.kind)) << bytes.size() << " bytes";
    }
  }
}

TEST(DraftFile, ChangedBytesOfTheHeaderGiveErrorsOnly) {
  std::mt19937 random(test::seed(1));
  for (const test::TrainedDraft& draft : {heads(), longspec()}) {
    const std::vector<std::byte> bytes = draft.bytes();
    const size_t header = 2000;
    ASSERT_LT(header, bytes.size());
    int failed = 0;
    for (int n = 0; n < 600; ++n) {
      std::vector<std::byte> changed = bytes;
      for (uint32_t i = 0; i <= random() % 2; ++i)
        changed[random() % header] = static_cast<std::byte>(random() % 4 == 0 ? 0 : random());
      failed += !opens(changed, draft.kind);
    }
    EXPECT_GT(failed, 300);
  }
}

}  // namespace
}  // namespace fathom

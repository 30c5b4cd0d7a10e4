#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "base/error.h"
#include "train/train_config.h"
#include "train/train_fields.h"

namespace fathom::train {
namespace {

/// Returns the error of a config text; empty if it is valid.
std::string config_error(const std::string& text) {
  try {
    parse_train_config(Json::parse(text), "run.json");
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::kUsage) << error.what();
    return error.what();
  }
  return "";
}

void expect_error_contains(const std::string& text, const std::vector<std::string>& parts) {
  const std::string error = config_error(text);
  for (const std::string& part : parts) EXPECT_NE(error.find(part), std::string::npos) << text << "\n" << error;
}

TEST(TrainConfig, EmptyObjectGivesTheDefaults) {
  const TrainConfig config = parse_train_config(Json::object(), "run.json");
  EXPECT_EQ(to_json(config), to_json(TrainConfig{}));
  EXPECT_EQ(config.optimizer.beta2, 0.95);
}

TEST(TrainConfig, WrittenConfigIsReadBackUnchanged) {
  TrainConfig config;
  config.data.sources = {{"books", 0.1}, {"more", 3}};
  config.optimizer.eps = 1.0 / 3;
  config.model.tied_output = false;
  config.schedule.kind = "stable";
  config.seed = 9007199254740991;
  const Json json = to_json(config);
  const TrainConfig again = parse_train_config(Json::parse(json.dump()), "run.json");
  EXPECT_EQ(to_json(again), json);
  EXPECT_EQ(again.data.sources[1].path, "more");
  EXPECT_EQ(again.optimizer.eps, 1.0 / 3);
  EXPECT_EQ(again.seed, 9007199254740991);
}

TEST(TrainConfig, EveryFieldHasItsOwnMemberAndADefaultWithinItsRange) {
  TrainConfig config;
  for (const TrainList& list : train_lists()) list.resize(config, 1);
  std::set<const void*> members;
  for (const TrainField& field : train_fields()) {
    const FieldTarget target = field.at(config, 0);
    std::visit([&](const auto* member) { EXPECT_TRUE(members.insert(member).second) << field.path; }, target);
    EXPECT_GT(std::string_view(field.summary).size(), 3u) << field.path;
    if (const auto* number = std::get_if<double*>(&target)) {
      EXPECT_TRUE(**number >= field.min && **number <= field.max) << field.path;
    }
    if (const auto* integer = std::get_if<int64_t*>(&target)) {
      EXPECT_TRUE(**integer >= field.min && **integer <= field.max) << field.path;
    }
  }
}

TEST(TrainConfig, MisspeltFieldsGetTheNearestNames) {
  expect_error_contains(R"({"stepz": 3})", {"run.json", "'stepz'", "did you mean", "steps"});
  expect_error_contains(R"({"optimizer": {"beta_1": 0.5}})", {"optimizer: unknown field 'beta_1'", "beta1"});
  expect_error_contains(R"({"data": {"sources": [{"path": "a"}, {"pat": "b"}]}})",
                        {"data.sources[1]: ", "'pat'", "path"});
  expect_error_contains(R"({"model": {"qqqqqqqqqqqqqqqq": 1}})", {"expected one of layers, width"});
}

TEST(TrainConfig, WrongTypesAndRangesNameThePathOfTheField) {
  expect_error_contains(R"({"steps": "many"})", {"run.json: steps is", "many", "an integer from 1 to"});
  expect_error_contains(R"({"steps": 1.5})", {"steps is", "1.5", "an integer"});
  expect_error_contains(R"({"steps": 0})", {"steps is", "0", "an integer from 1 to"});
  expect_error_contains(R"({"steps": 18446744073709551615})", {"steps is", "18446744073709551615"});
  expect_error_contains(R"({"optimizer": {"beta1": 2}})", {"optimizer.beta1 is", "2", "a number from 0 to 0.9999"});
  expect_error_contains(R"({"model": {"tied_output": 1}})", {"model.tied_output is", "true or false"});
  expect_error_contains(R"({"schedule": {"kind": "linear"}})", {"schedule.kind is", "linear", "cosine, stable"});
  expect_error_contains(R"({"data": {"sources": [{"path": 3}]}})", {"data.sources[0].path is", "a string"});
  expect_error_contains(R"({"data": {"sources": {}}})", {"data.sources is", "a list"});
  expect_error_contains(R"({"data": []})", {"data is", "an object"});
  expect_error_contains(R"([])", {"the config is", "an object"});
  expect_error_contains(R"({"steps": null})", {"steps is", "null"});
}

TEST(TrainConfig, ContradictoryFieldsAreBothNamed) {
  expect_error_contains(R"({"model": {"heads": 8, "kv_heads": 3}})", {"model.heads is 8", "model.kv_heads, 3"});
  expect_error_contains(R"({"model": {"head_dim": 7}})", {"model.head_dim is 7"});
  expect_error_contains(R"({"data": {"lengths": {"shortest": 512, "longest": 256}}})",
                        {"data.lengths.shortest is 512", "data.lengths.longest, 256"});
  expect_error_contains(R"({"data": {"lengths": {"longest": 1000}}})",
                        {"data.lengths.longest is 1000", "power of two"});
  expect_error_contains(R"({"batch_tokens": 5000})", {"batch_tokens is 5000", "data.lengths.longest, 4096"});
  expect_error_contains(R"({"steps": 10, "schedule": {"warmup_steps": 11}})",
                        {"schedule.warmup_steps", "steps, 10"});
}

TEST(TrainConfig, DraftFieldsAreCheckedTogether) {
  EXPECT_EQ(config_error(R"({"start": "m.gguf", "draft": {"kind": "longspec", "heads": 4, "kv_heads": 2}})"), "");
  EXPECT_EQ(config_error(R"({"draft": {"steps": 8}})"), "");
  expect_error_contains(R"({"draft": {"kind": "heads"}})", {"draft.kind is heads", "start is empty"});
  expect_error_contains(R"({"draft": {"kind": "eagle"}})",
                        {"draft.kind is", "eagle", "none, heads, hidden-transfer"});
  expect_error_contains(R"({"start": "m", "draft": {"kind": "hidden-transfer", "steps": 5}})",
                        {"draft.steps is 5", "at most 4"});
  expect_error_contains(R"({"start": "m", "draft": {"kind": "heads", "steps": 9}})",
                        {"draft.steps is", "from 1 to 8"});
  expect_error_contains(R"({"start": "m", "draft": {"kind": "longspec", "heads": 4, "kv_heads": 3}})",
                        {"draft.heads is 4", "draft.kv_heads, 3"});
  expect_error_contains(R"({"start": "m", "draft": {"kind": "longspec", "head_dim": 7}})", {"draft.head_dim is 7"});
  expect_error_contains(R"({"start": "m", "draft": {"kind": "heads"}, "model": {"landmark_block": 50}})",
                        {"model.landmark_block is 50"});
  TrainConfig config;
  const Json saved = to_json(config);
  config.draft.sequential = false;
  EXPECT_EQ(differing_fields(saved, to_json(config)),
            (std::vector<std::string>{"draft.sequential: true, now false"}));
  EXPECT_EQ(train_config_schema()["properties"]["draft"]["properties"]["kind"]["enum"],
            (Json{"none", "heads", "hidden-transfer", "longspec", "lexical-unit"}));
}

TEST(TrainConfig, InvalidJsonIsRejectedWithPathAndLine) {
  std::string folder = testing::TempDir() + "fathom_config_XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  const std::string path = folder + "/run.json";
  std::ofstream(path) << "{\n  \"steps\": 5,\n  oops\n}";
  try {
    read_train_config(path);
    ADD_FAILURE() << "invalid JSON was accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("line 3"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find(path), std::string::npos) << error.what();
  }
  std::ofstream(path) << R"({"steps": 555})";
  EXPECT_EQ(read_train_config(path).steps, 555);
  std::filesystem::remove_all(folder);
  EXPECT_THROW(read_train_config(path), Error);
}

TEST(TrainConfig, SchemaMatchesTheChecksOfTheReader) {
  const Json schema = train_config_schema();
  EXPECT_EQ(schema["additionalProperties"], false);
  const Json& beta = schema["properties"]["optimizer"]["properties"]["beta1"];
  EXPECT_EQ(beta["type"], "number");
  EXPECT_EQ(beta["default"], 0.9);
  EXPECT_EQ(beta["minimum"], 0.0);
  EXPECT_EQ(beta["maximum"], 0.9999);
  const Json& sources = schema["properties"]["data"]["properties"]["sources"];
  EXPECT_EQ(sources["type"], "array");
  EXPECT_EQ(sources["items"]["properties"]["share"]["default"], 1.0);
  EXPECT_EQ(schema["properties"]["precision"]["enum"], (Json{"auto", "bf16", "f32"}));
}

TEST(TrainConfig, DifferencesThatAffectResultsAreNamedWithBothValues) {
  TrainConfig config;
  config.data.sources = {{"books", 1}};
  const Json saved = to_json(config);
  EXPECT_TRUE(differing_fields(saved, saved).empty());
  config.checkpoint.interval = 7;
  config.threads = 3;
  EXPECT_TRUE(differing_fields(saved, to_json(config)).empty());
  config.optimizer.beta1 = 0.8;
  config.data.sources.push_back({"more", 2});
  EXPECT_EQ(differing_fields(saved, to_json(config)),
            (std::vector<std::string>{"data.sources[1].path: missing, now \"more\"",
                                      "data.sources[1].share: missing, now 2.0", "optimizer.beta1: 0.9, now 0.8"}));
}

TEST(TrainConfig, CompressionsAreChecked) {
  EXPECT_EQ(config_error(R"({"start": "m.gguf", "compress": {"kind": "compllm", "segment": 12, "factor": 4}})"),
            "");
  expect_error_contains(R"({"compress": {"kind": "lococo"}})", {"compress.kind is lococo", "start is empty"});
  expect_error_contains(R"({"start": "m", "compress": {"kind": "gist"}})",
                        {"compress.kind is", "gist", "none, lococo, compllm, arc-encoder, cmr"});
  expect_error_contains(R"({"start": "m", "compress": {"kind": "lococo", "slots": 63}})",
                        {"compress.slots is 63", "an even number"});
  expect_error_contains(R"({"start": "m", "compress": {"kind": "lococo", "kernel": 4}})",
                        {"compress.kernel is 4", "an odd number"});
  expect_error_contains(R"({"start": "m", "compress": {"kind": "compllm", "segment": 10, "factor": 4}})",
                        {"compress.segment is 10", "compress.factor, 4"});
  expect_error_contains(R"({"start": "m", "compress": {"kind": "cmr"}, "draft": {"kind": "heads"}})",
                        {"draft.kind is heads and compress.kind cmr", "one of them"});
  expect_error_contains(R"({"start": "m", "compress": {"kind": "cmr"}, "model": {"landmark_block": 50}})",
                        {"compress.kind is cmr, but model.landmark_block is 50"});
}

TEST(TrainConfig, FieldsMissingInASavedConfigHadTheirDefaults) {
  Json saved = to_json(TrainConfig());
  saved["model"].erase("attention");
  TrainConfig config;
  EXPECT_TRUE(differing_fields(saved, to_json(config)).empty());
  config.model.attention = "softplus";
  EXPECT_EQ(differing_fields(saved, to_json(config)),
            (std::vector<std::string>{"model.attention: \"softmax\", now \"softplus\""}));
}

}  // namespace
}  // namespace fathom::train
